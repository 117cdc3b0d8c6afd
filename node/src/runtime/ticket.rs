//! The ticket that this node hands out: where it can be reached, as far as it knows.

use updraft_protocol::ticket::Ticket;

use super::Runtime;
use super::calls::error;
use crate::control::messages::{ErrorBody, ErrorCode, Response};
use crate::control::results::TicketView;
use crate::control::views::Schema;

impl Runtime {
    pub(super) fn ticket_view(&self, addresses: &[String]) -> Result<Response, ErrorBody> {
        let ticket = self.ticket(addresses).ok_or_else(|| {
            error(ErrorCode::Error, "this node has not verified its repository yet")
                .with_hint("wait until it reached a peer: updraft status")
        })?;
        Ok(Response::Ticket(TicketView {
            schema: Schema,
            fingerprint: ticket.fingerprint(),
            repository: ticket.repository.0,
            addresses: ticket.addresses.clone(),
            ticket: ticket.to_string(),
        }))
    }

    fn with_peer(&self, address: &str) -> String {
        if address.contains("/p2p/") { address.to_owned() } else { format!("{address}/p2p/{}", self.peer_id) }
    }

    /// Addresses that a ticket should carry: those configured, else those that others may reach,
    /// else those of this machine.
    fn ticket_addresses(&self) -> Vec<String> {
        if !self.config.external.is_empty() {
            return self.config.external.iter().map(|address| self.with_peer(address)).collect();
        }
        let all = self.listening.borrow().clone();
        let local = |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
        let wide: Vec<String> = all.iter().filter(|address| !local(address)).cloned().collect();
        if wide.is_empty() { all } else { wide }
    }

    /// This node's ticket with `addresses`, or with its own where there are none.
    pub(super) fn ticket(&self, addresses: &[String]) -> Option<Ticket> {
        let view = self.engine.catalog()?;
        let mut addresses = if addresses.is_empty() {
            self.ticket_addresses()
        } else {
            addresses.iter().map(|address| self.with_peer(address)).collect()
        };
        addresses.truncate(updraft_protocol::limits::MAX_PEER_ADDRESSES);
        Some(self.opened.ticket_for(view, addresses))
    }
}
