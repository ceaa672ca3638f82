//! `whoami`: who a mount is for the servers, and what it may do.

use std::fmt::Write as _;

use coord_types::InodeId;
use zhongkui::terms::Terms;
use zhongkui::{Capability, Refusal, Resource, Rights};

/// What there is to say.
#[derive(Clone, Copy, Debug)]
pub struct Whoami<'a> {
    /// What the cluster is called, and the file that says so.
    pub cluster: &'a str,
    pub description: &'a str,
    pub capability: &'a Capability,
    /// Why the capability is good for nothing now, if so.
    pub refusal: Option<&'a Refusal>,
    /// The directory that is shown as the root, by its number in the cluster.
    pub root: InodeId,
    pub read_only: bool,
}

/// What means something for files.
const OF_FILES: Rights = Rights::READ.union(Rights::WRITE).union(Rights::ACT_AS).union(Rights::SUPERUSER);

/// A line for each thing, then the capability block by block.
#[must_use]
pub fn whoami(who: &Whoami<'_>) -> String {
    let Whoami { cluster, description, capability, refusal, root, read_only } = *who;
    let user = &capability.root().user;
    let gids: Vec<String> = user.gids().iter().map(u32::to_string).collect();
    let mut out = String::new();
    let mut line = |what: &str, text: String| {
        writeln!(out, "{what:<11}{text}").expect("a String grows");
    };
    line("user", format!("{}, uid {}, gids {}", user.name, user.uid, gids.join(" ")));
    line("known as", capability.principal());
    line("capability", format!("{}, held by key {}", capability.root().id, capability.holder_id()));
    line(
        "valid",
        match capability.validity() {
            Some(validity) => format!("from {} until {}", validity.not_before(), validity.not_after()),
            None => "never: the times below have nothing in common".to_owned(),
        },
    );
    line("now", refusal.map_or_else(|| "good".to_owned(), |refusal| format!("refused: {refusal}")));
    line("cluster", format!("{cluster} ({description})"));
    line(
        "root",
        if root == InodeId::ROOT {
            format!("the whole tree (inode {root})")
        } else {
            format!("one directory and what is below it (inode {root}, shown as {})", InodeId::ROOT)
        },
    );
    line("mount", if read_only { "read-only" } else { "read and write" }.to_owned());
    let (all, some) = (everywhere(capability, root), somewhere(capability));
    line(
        "may",
        match (all & OF_FILES, some.difference(all)) {
            (all, rest) if (all | rest).is_empty() => "nothing with files".to_owned(),
            (all, rest) if rest.is_empty() => format!("{all}, everywhere below the root"),
            (all, rest) if all.is_empty() => format!("{rest}, where the grants below say so"),
            (all, rest) => format!("{all}, everywhere below the root; {rest}, where the grants below say so"),
        },
    );
    let name = &user.name;
    line(
        "acts for",
        match reach(Rights::ACT_AS, all, some) {
            Reach::Everywhere => "whoever asks: this machine's kernel says who".to_owned(),
            Reach::Somewhere => format!("whoever asks where it has act-as, {name} elsewhere"),
            Reach::Nowhere => format!("{name}, whoever asks"),
        },
    );
    line(
        "uid 0",
        match reach(Rights::SUPERUSER, all, some) {
            Reach::Everywhere => "superuser",
            Reach::Somewhere => "superuser where the grants below say so, nobody elsewhere",
            Reach::Nowhere => "nobody",
        }
        .to_owned(),
    );
    out + "\n" + &capability.to_string()
}

enum Reach {
    Everywhere,
    Somewhere,
    Nowhere,
}

fn reach(right: Rights, all: Rights, some: Rights) -> Reach {
    match (all.contains(right), some.contains(right)) {
        (true, _) => Reach::Everywhere,
        (false, true) => Reach::Somewhere,
        (false, false) => Reach::Nowhere,
    }
}

/// The rights that every block gives on the root and all below. A directory that the root is in gives them too, but where the root is only the
/// masters know: those are among [`somewhere`].
fn everywhere(capability: &Capability, root: InodeId) -> Rights {
    of_all_blocks(capability, |resource| match resource {
        Resource::Everything => true,
        Resource::Directory(directory) => *directory == root || *directory == InodeId::ROOT,
        Resource::File(_)
        | Resource::Nuwa(_)
        | Resource::Queue(_)
        | Resource::Action(_)
        | Resource::Service(_) => false,
    })
}

/// The rights that every block gives on something in Pangu; maybe not on the same.
fn somewhere(capability: &Capability) -> Rights {
    of_all_blocks(capability, |resource| match resource {
        Resource::Everything | Resource::Directory(_) | Resource::File(_) => true,
        Resource::Nuwa(_) | Resource::Queue(_) | Resource::Action(_) | Resource::Service(_) => false,
    })
}

fn of_all_blocks(capability: &Capability, on: impl Fn(&Resource) -> bool) -> Rights {
    let of_block = |terms: &Terms| -> Rights {
        let grants = terms.grants().iter().filter(|grant| on(grant.resource()));
        grants.fold(Rights::empty(), |rights, grant| rights | grant.rights())
    };
    capability.terms().map(of_block).fold(OF_FILES, |rights, of_block| rights & of_block)
}

#[cfg(test)]
mod tests {
    use zhongkui::terms::Root;
    use zhongkui::{CapabilityId, Grant, SecretKey, Timestamp, User, UserEpoch, UserName, Validity};

    use super::*;

    const SHARED: InodeId = InodeId(77);

    fn terms(holder: &SecretKey, grants: &[(&str, &str)]) -> Terms {
        let grants = grants.iter().map(|(rights, resource)| {
            Grant::new(rights.parse().unwrap(), resource.parse().unwrap()).unwrap()
        });
        let validity = Validity::new(Timestamp(0), Timestamp(86_400)).unwrap();
        Terms::new(holder.public(), validity, grants.collect()).unwrap()
    }

    fn granted(holder: &SecretKey, grants: &[(&str, &str)]) -> Capability {
        let authority = SecretKey::from_seed(&[1; 32]);
        let name = UserName::new("alice").unwrap();
        let user = User::new(name, UserEpoch(3), 1000, vec![1000, 27]).unwrap();
        let root = Root { id: CapabilityId(0xab), issuer: authority.public().id(), user };
        Capability::grant(&authority, root, terms(holder, grants)).unwrap()
    }

    fn text(capability: &Capability, root: InodeId, read_only: bool) -> String {
        let refusal = zhongkui::decide::valid(capability, Timestamp(5)).err();
        whoami(&Whoami {
            cluster: "home",
            description: "/etc/cluster.toml",
            capability,
            refusal: refusal.as_ref(),
            root,
            read_only,
        })
    }

    #[test]
    fn says_who_and_what() {
        let key = SecretKey::from_seed(&[2; 32]);
        let capability = granted(&key, &[("read,write,act-as", "directory:77")]);
        let text = text(&capability, SHARED, false);
        let (id, whole) = (key.public().id(), capability.to_string());
        let expected = format!(
            "\
user       alice, uid 1000, gids 1000 27
known as   alice
capability 00000000000000ab, held by key {id}
valid      from 1970-01-01 00:00:00 UTC until 1970-01-02 00:00:00 UTC
now        good
cluster    home (/etc/cluster.toml)
root       one directory and what is below it (inode 77, shown as 1)
mount      read and write
may        read, write, act-as, everywhere below the root
acts for   whoever asks: this machine's kernel says who
uid 0      nobody

{whole}"
        );
        assert_eq!(text, expected);
        assert!(text.ends_with("    directory 77 and all below: read, write, act-as\n"), "{text}");
    }

    #[test]
    fn rights_are_what_every_block_gives() {
        let (key, other) = (SecretKey::from_seed(&[2; 32]), SecretKey::from_seed(&[3; 32]));
        let wide = granted(&key, &[("all", "everything")]);
        let said = |capability: &Capability, root, line: &str| {
            let text = text(capability, root, true);
            assert!(text.contains("\nmount      read-only\n"), "{text}");
            assert!(text.contains(&format!("\n{line}\n")), "{line:?} is not in\n{text}");
        };
        said(&wide, InodeId::ROOT, "root       the whole tree (inode 1)");
        said(&wide, InodeId::ROOT, "may        read, write, act-as, superuser, everywhere below the root");
        said(&wide, InodeId::ROOT, "uid 0      superuser");

        let narrow = wide.narrow(&key, terms(&other, &[("read", "directory:77")])).unwrap();
        said(&narrow, SHARED, "may        read, everywhere below the root");
        said(&narrow, SHARED, "acts for   alice, whoever asks");
        said(&narrow, SHARED, &format!("known as   alice/{}", other.public().id()));
        said(&narrow, InodeId(78), "may        read, where the grants below say so");

        let mixed = granted(&key, &[("read", "everything"), ("write,act-as,superuser", "directory:77")]);
        said(
            &mixed,
            InodeId::ROOT,
            "may        read, everywhere below the root; write, act-as, superuser, where the grants below say so",
        );
        said(&mixed, InodeId::ROOT, "acts for   whoever asks where it has act-as, alice elsewhere");
        said(&mixed, InodeId::ROOT, "uid 0      superuser where the grants below say so, nobody elsewhere");

        let elsewhere = granted(&key, &[("read", "nuwa:/")]);
        said(&elsewhere, InodeId::ROOT, "may        nothing with files");
    }

    #[test]
    fn what_is_good_for_nothing_says_why() {
        let (key, other) = (SecretKey::from_seed(&[2; 32]), SecretKey::from_seed(&[3; 32]));
        let capability = granted(&key, &[("read", "everything")]);
        let refusal = zhongkui::decide::valid(&capability, Timestamp(90_000)).unwrap_err();
        let who = Whoami {
            cluster: "home",
            description: "/c.toml",
            capability: &capability,
            refusal: Some(&refusal),
            root: InodeId::ROOT,
            read_only: false,
        };
        let text = whoami(&who);
        assert!(text.contains("\nnow        refused: capability 00000000000000ab expired"), "{text}");
        let later = Validity::new(Timestamp(80_000), Timestamp(86_400)).unwrap();
        let grants = vec![Grant::new(Rights::READ, Resource::Everything).unwrap()];
        let narrow = capability.narrow(&key, Terms::new(other.public(), later, grants).unwrap()).unwrap();
        let text = whoami(&Whoami { capability: &narrow, refusal: None, ..who });
        assert!(text.contains("\nvalid      from 1970-01-01 22:13:20 UTC until"), "of all blocks: {text}");
    }
}
