//! `where/PATH`, and `pangu where`: the replicas of a file.

use master_api::proto::{MemberState, WhereReply};

use super::state_name;
use crate::text::{Table, size};

/// Chunks of a file of this length.
#[must_use]
pub fn chunks(reply: &WhereReply) -> u64 {
    let Some(attr) = &reply.attr else { return 0 };
    let size = attr.layout.as_ref().map_or(0, |layout| layout.chunk_size_bytes);
    if size == 0 { 0 } else { attr.size_bytes.div_ceil(size.into()) }
}

/// `name`: what the file is called here.
#[must_use]
pub fn place(name: &str, reply: &WhereReply) -> String {
    let Some(attr) = &reply.attr else { return String::new() };
    let Some(layout) = &attr.layout else {
        return format!("{name} has no data of its own: it is no regular file\n");
    };
    let chunks = chunks(reply);
    let mut out = format!(
        "{name}: inode {}, {} in {chunks} chunk(s) of {}, striped over {} group(s)\n",
        attr.ino,
        size(attr.size_bytes),
        size(layout.chunk_size_bytes.into()),
        reply.groups.len(),
    );
    let mut table =
        Table::new(["chunks", "group", "epoch", "disk", "chunkserver", "location", "address", "state"]);
    let width = reply.groups.len() as u64;
    for (at, group) in (0u64..).zip(&reply.groups) {
        let which = match (width, chunks) {
            (1, _) => "all".to_owned(),
            (_, chunks) if at >= chunks => "none yet".to_owned(),
            (_, chunks) if at + width >= chunks => at.to_string(),
            _ => format!("{at}, {}, ...", at + width),
        };
        let primary = group.places.iter().position(|place| place.state() == MemberState::Serving);
        for (at, place) in group.places.iter().enumerate() {
            let first = at == 0;
            let role = if Some(at) == primary { " (primary)" } else { "" };
            table.row([
                if first { which.clone() } else { String::new() },
                if first { group.group.to_string() } else { String::new() },
                if first { group.epoch.to_string() } else { String::new() },
                place.disk.to_string(),
                place.server.to_string(),
                place.location.clone(),
                place.address.clone(),
                format!("{}{role}", state_name(place.state())),
            ]);
        }
    }
    out.push_str(&table.render());
    out
}

#[cfg(test)]
mod tests {
    use master_api::proto::{Attr, Layout, Place, WhereGroup};

    use super::*;

    #[test]
    fn names_the_replicas_of_each_chunk() {
        let place_of = |server: u32, state: MemberState| Place {
            disk: server * 10,
            server,
            address: "tcp://a:1".to_owned(),
            location: format!("/r/rack{server}/h"),
            state: state.into(),
        };
        let group = |group| WhereGroup {
            group,
            epoch: 2,
            places: vec![place_of(1, MemberState::Offline), place_of(2, MemberState::Serving)],
        };
        let layout = Layout { chunk_size_bytes: 1 << 20, ..Layout::default() };
        let mut reply = WhereReply {
            attr: Some(Attr { ino: 7, size_bytes: 5 << 19, layout: Some(layout), ..Attr::default() }),
            groups: vec![group(4), group(5)],
            ..WhereReply::default()
        };
        let text = place("a file", &reply);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "a file: inode 7, 2.5 MiB in 3 chunk(s) of 1.0 MiB, striped over 2 group(s)");
        assert_eq!(lines[2], "0, 2, ...  4      2      10    1            /r/rack1/h  tcp://a:1  offline");
        assert_eq!(
            lines[3],
            "                         20    2            /r/rack2/h  tcp://a:1  serving (primary)"
        );
        assert_eq!(lines[4], "1          5      2      10    1            /r/rack1/h  tcp://a:1  offline");
        reply.attr.as_mut().unwrap().layout = None;
        assert_eq!(place("a pipe", &reply), "a pipe has no data of its own: it is no regular file\n");
    }
}
