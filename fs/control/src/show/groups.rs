//! `groups`: each replica group on a line.

use master_api::proto::{MemberState, StatusReply};

use super::{groups_of, members};
use crate::text::Table;

#[must_use]
pub fn groups(status: &StatusReply) -> String {
    let mut table = Table::new(["group", "epoch", "primary", "members (disks)"]);
    for group in groups_of(status) {
        let primary = group.members.iter().find(|member| member.state() == MemberState::Serving);
        table.row([
            group.id.to_string(),
            group.epoch.to_string(),
            primary.map_or_else(|| "none".to_owned(), |member| member.disk.to_string()),
            members(group),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::testing::with_states;

    #[test]
    fn the_first_serving_member_leads() {
        let text = groups(&with_states([MemberState::Offline, MemberState::Serving, MemberState::Syncing]));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1], "1      5      20       10 offline, 20 serving, 30 syncing");
        assert_eq!(lines[2], "2      5      10       10 serving, 20 serving, 30 serving");
    }
}
