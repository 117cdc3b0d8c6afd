//! What `updraft gc` answers: everything that is kept on disk, what of it goes, and why the rest stays.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Platform, Product};

use super::views::Schema;

/// `updraft gc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcView {
    /// The contract.
    pub schema: Schema,
    /// Nothing was removed: this is what would be.
    pub dry_run: bool,
    /// Bytes on disk of what goes.
    pub bytes_freed: u64,
    /// Bytes of artifacts that stay.
    pub cache_bytes: u64,
    /// Bytes of artifacts beyond which a mirror keeps fewer old releases; none without a limit.
    pub cache_limit_bytes: Option<u64>,
    /// The artifacts in the store.
    pub artifacts: Vec<GcArtifact>,
    /// The unpacked releases in install directories.
    pub trees: Vec<GcTree>,
    /// What could not be looked at or removed, in sentences.
    pub warnings: Vec<String>,
}

/// An artifact in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcArtifact {
    /// SHA-256 of the artifact.
    pub sha256: Digest,
    /// Of which product; none where no signed metadata lists it.
    pub product: Option<Product>,
    /// Which version.
    pub version: Option<String>,
    /// What it runs on.
    pub platform: Option<Platform>,
    /// Bytes of it that are here.
    pub size_bytes: u64,
    /// Whether it goes.
    pub goes: bool,
    /// Why it stays, or goes, in words.
    pub reason: String,
}

/// An unpacked release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcTree {
    /// The install directory.
    pub directory: PathBuf,
    /// Of which product.
    pub product: Product,
    /// Its name below `releases/`.
    pub name: String,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// Whether it goes.
    pub goes: bool,
    /// Why it stays, or goes, in words.
    pub reason: String,
    /// A process that runs from it.
    pub pid: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_of_gc() {
        let view = GcView {
            schema: Schema,
            dry_run: true,
            bytes_freed: 17,
            cache_bytes: 5,
            cache_limit_bytes: None,
            artifacts: vec![GcArtifact {
                sha256: Digest::from([0xab; 32]),
                product: Some("app".parse().expect("a name")),
                version: Some("1.0.0".to_owned()),
                platform: Some(Platform::any()),
                size_bytes: 5,
                goes: false,
                reason: "is installed".to_owned(),
            }],
            trees: vec![GcTree {
                directory: "/opt/app".into(),
                product: "app".parse().expect("a name"),
                name: "0.9.0-abababab".to_owned(),
                size_bytes: 17,
                goes: true,
                reason: "nothing needs it".to_owned(),
                pid: None,
            }],
            warnings: Vec::new(),
        };
        let digest = Digest::from([0xab; 32]);
        let expected = format!(
            r#"{{"schema":1,"dry_run":true,"bytes_freed":17,"cache_bytes":5,"cache_limit_bytes":null,"artifacts":[{{"sha256":"{digest}","product":"app","version":"1.0.0","platform":"any","size_bytes":5,"goes":false,"reason":"is installed"}}],"trees":[{{"directory":"/opt/app","product":"app","name":"0.9.0-abababab","size_bytes":17,"goes":true,"reason":"nothing needs it","pid":null}}],"warnings":[]}}"#
        );
        assert_eq!(serde_json::to_string(&view).expect("serializable"), expected);
        assert_eq!(serde_json::from_str::<GcView>(&expected).expect("decodes"), view);
    }
}
