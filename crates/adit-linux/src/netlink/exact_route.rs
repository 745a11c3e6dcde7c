//! Lookup of the routes to exactly given networks.
//!
//! Listing all routes costs too much on a router with many. The kernel is asked for the longest
//! match of each network instead, and where that cannot decide, the caller lists.

use ipnet::IpNet;
use netlink_packet_route::route::RouteFlags;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::route::{family_of, get_route, of_message};
use super::{MAIN_TABLE, Netlink, Route};
use crate::error::Result;

/// `RT_TABLE_DEFAULT` and `RT_TABLE_LOCAL`, with the main table between.
const USUAL_TABLES: std::ops::RangeInclusive<u32> = 253..=255;

impl Netlink {
    /// Returns the routes of the main table to exactly these networks, or `None` if only
    /// [`Netlink::routes`] can tell.
    ///
    /// The kernel looks up the longest route that matches each network's first address. This does
    /// not decide if a longer route hides the network's own, or if a rule selects another table. Of
    /// several routes to one network it returns the one with the lowest metric.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn routes_to_exactly(&mut self, networks: &[IpNet]) -> Result<Option<Vec<Route>>> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let is_asked = networks.iter().any(|network| family_of(network.addr()) == family);
            if is_asked && !self.has_usual_rules(family)? {
                return Ok(None);
            }
        }
        let found = self.socket.ask_all(
            networks,
            |network| match get_route(network.network(), None) {
                RouteNetlinkMessage::GetRoute(mut message) => {
                    message.header.flags |= RouteFlags::FibMatch;
                    RouteNetlinkMessage::GetRoute(message)
                }
                other => other,
            },
            |_, answer| match answer {
                Some(RouteNetlinkMessage::NewRoute(message)) => Ok(of_message(message)),
                _ => Ok(None),
            },
            |network| format!("cannot find the route to {network}"),
        )?;
        Ok(networks
            .iter()
            .zip(found)
            .map(|(network, found)| exact(*network, found))
            .collect::<Option<Vec<_>>>()
            .map(|found| found.into_iter().flatten().collect()))
    }

    /// Returns true if the rules of a family select the usual tables and no others.
    fn has_usual_rules(&mut self, family: AddressFamily) -> Result<bool> {
        let mut message = RuleMessage::default();
        message.header.family = family;
        let rule = |answer| match answer {
            RouteNetlinkMessage::NewRule(rule) => Some(is_usual(&rule)),
            _ => None,
        };
        let what = || "cannot list the routing rules".to_owned();
        let rules = self.socket.dump_of(&RouteNetlinkMessage::GetRule(message), rule, what)?;
        Ok(rules.into_iter().all(|is_usual| is_usual))
    }
}

fn is_usual(rule: &RuleMessage) -> bool {
    let header = &rule.header;
    let is_for_all = header.src_len == 0 && header.dst_len == 0 && header.tos == 0;
    is_for_all
        && header.action == RuleAction::ToTable
        && rule.attributes.iter().all(|attribute| match attribute {
            RuleAttribute::Table(table) => USUAL_TABLES.contains(table),
            RuleAttribute::SuppressPrefixLen(length) => *length == u32::MAX,
            RuleAttribute::Priority(_) | RuleAttribute::Protocol(_) => true,
            _ => false,
        })
}

/// Returns the route to `network` itself, given the longest match. The outer `None` means that the
/// match does not decide.
fn exact(network: IpNet, found: Result<Option<Route>>) -> Option<Option<Route>> {
    match found {
        Err(error) if error.errno() == Some(libc::ENETUNREACH) => Some(None),
        Ok(Some(route)) if route.table == MAIN_TABLE => {
            if route.destination.prefix_len() < network.prefix_len() {
                Some(None)
            } else {
                (route.destination == network).then_some(Some(route))
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn only_a_match_that_is_not_longer_decides() {
        let network: IpNet = "10.2.0.0/16".parse().unwrap();
        let route =
            |destination: &str| Route { destination: destination.parse().unwrap(), ..Route::default() };
        let told = |route: Route| exact(network, Ok(Some(route)));
        assert_eq!(told(route("0.0.0.0/0")), Some(None));
        assert_eq!(told(route("10.2.0.0/15")), Some(None));
        assert_eq!(told(route("10.2.0.0/16")), Some(Some(route("10.2.0.0/16"))));
        assert_eq!(told(route("10.2.0.0/24")), None, "it may hide a route to the network");
        assert_eq!(told(Route { table: 255, ..route("10.2.0.0/16") }), None, "the main table may have one");
        let refused = |errno| exact(network, Err(Error::from_errno("no", errno)));
        assert_eq!(refused(libc::ENETUNREACH), Some(None));
        assert_eq!(refused(libc::EACCES), None, "a prohibiting route may hide one");
    }
}
