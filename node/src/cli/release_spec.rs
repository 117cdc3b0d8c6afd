//! `PRODUCT[@VERSION]`, as commands that mean a release take it.

use std::path::PathBuf;
use std::str::FromStr;

use semver::Version;
use updraft_protocol::names::{InvalidName, Product, parse_version};

/// A product, and perhaps one of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseSpec {
    /// Which product.
    pub product: Product,
    /// Which version; what the channel offers where absent.
    pub version: Option<Version>,
}

impl FromStr for ReleaseSpec {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (product, version) = match text.split_once('@') {
            Some((product, version)) => (product, Some(parse_version(version)?)),
            None => (text, None),
        };
        Ok(Self { product: product.parse()?, version })
    }
}

/// `PRODUCT[@VERSION]=FILE`: a release and where its artifact is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchSpec {
    /// Which release.
    pub release: ReleaseSpec,
    /// Where to, absolute.
    pub output: PathBuf,
}

/// A text that names no release and file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFetchSpec {
    /// A name in it is not one.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// There is no file in it.
    #[error("'{0}' names no file; write PRODUCT[@VERSION]=FILE")]
    NoFile(String),
}

impl FromStr for FetchSpec {
    type Err = InvalidFetchSpec;

    fn from_str(text: &str) -> Result<Self, InvalidFetchSpec> {
        let no_file = || InvalidFetchSpec::NoFile(text.to_owned());
        let (release, file) = text.split_once('=').filter(|(_, file)| !file.is_empty()).ok_or_else(no_file)?;
        Ok(Self { release: release.parse()?, output: std::path::absolute(file).map_err(|_| no_file())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_optional() {
        let spec: ReleaseSpec = "editor@1.2.0-rc.1+b7".parse().expect("valid");
        assert_eq!(spec.version.map(|v| v.to_string()).as_deref(), Some("1.2.0-rc.1+b7"));
        assert_eq!("editor".parse::<ReleaseSpec>().expect("valid").version, None);
        for bad in ["", "@1.0.0", "editor@", "editor@1", "editor@1.0.0@2.0.0", "Editor"] {
            assert!(bad.parse::<ReleaseSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fetch_names_its_file() {
        let spec: FetchSpec = "editor@1.0.0=/tmp/a=b".parse().expect("valid");
        assert_eq!(spec.output, PathBuf::from("/tmp/a=b"));
        for bad in ["editor", "editor=", "=/tmp/a", "editor@x=/tmp/a"] {
            assert!(bad.parse::<FetchSpec>().is_err(), "{bad}");
        }
    }
}
