//! Owns the question whether a credential may go to the hosts of a rule: both lists must allow a host.

use super::located::Located;
use crate::types::host::HostPattern;

/// The first host of a rule that a credential's list does not allow.
pub(super) fn first_beyond<'a>(
    rule_hosts: &'a [Located<String>],
    credential_hosts: &[Located<String>],
) -> Option<&'a Located<String>> {
    let allowed: Vec<HostPattern> = credential_hosts
        .iter()
        .filter_map(|host| HostPattern::parse(host).ok())
        .collect();
    // What is no host at all is reported as that, not as beyond reach.
    rule_hosts.iter().find(|host| {
        HostPattern::parse(host).is_ok_and(|host| !allowed.iter().any(|wide| wide.contains(&host)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_within_reach_if_the_credential_names_all_of_it() {
        let table = [
            ("api.github.com", "api.github.com", true),
            ("api.github.com", "*.github.com", true),
            ("*.api.github.com", "*.github.com", true),
            ("*.github.com", "*.github.com", true),
            ("*.github.com", "api.github.com", false),
            ("github.com", "*.github.com", false),
            ("*.evilgithub.com", "*.github.com", false),
            ("not a host", "api.github.com", true),
        ];
        for (rule, credential, within) in table {
            let of = |text: &str| [Located::unwritten(text.to_owned())];
            let beyond = first_beyond(&of(rule), &of(credential)).is_some();
            assert_eq!(!beyond, within, "{rule} in {credential}");
        }
    }
}
