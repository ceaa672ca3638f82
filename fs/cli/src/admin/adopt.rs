//! `pangu adopt`: an embedded store becomes the first node of a cluster.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use deploy_embedded::{Adoption, FirstNode, adopt, default_data_dir, quoted};
use kuafu::Address;
use serde_json::json;

/// What a chunkserver's example address is above the master's.
const PORT_STEP: u16 = 10;

pub(super) struct Wanted<'a> {
    pub(super) dir: Option<&'a PathBuf>,
    pub(super) listen: &'a str,
    pub(super) nuwa_listen: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) replicas: u32,
    pub(super) min_replicas: Option<u32>,
    pub(super) json: bool,
}

pub(super) async fn run(wanted: Wanted<'_>) -> anyhow::Result<String> {
    let data_dir = wanted.dir.cloned().or_else(default_data_dir).context(
        "there is no home directory that could have a store: name the directory, as in `pangu adopt DIR`",
    )?;
    let master: Address = wanted.listen.parse().context("--listen")?;
    let nuwa = wanted.nuwa_listen.map(str::parse).transpose().context("--nuwa-listen")?;
    let adoption = Adoption {
        data_dir,
        name: wanted.name.to_owned(),
        master: master.clone(),
        nuwa,
        replicas: wanted.replicas,
        min_replicas: wanted.min_replicas.unwrap_or_else(|| wanted.replicas.min(2)),
    };
    let node = adopt(&adoption).await?;
    if wanted.json {
        let chunkservers: Vec<_> = node.chunkservers.iter().map(|dir| dir.display().to_string()).collect();
        return Ok(format!(
            "{:#}\n",
            json!({"cluster": node.cluster_file.display().to_string(), "master": node.master.display().to_string(),
                   "nuwa": node.nuwa.as_ref().map(|dir| dir.display().to_string()),
                   "chunkservers": chunkservers, "already": node.already})
        ));
    }
    Ok(text(&node, &master))
}

/// What to type next, for this machine and for others.
fn text(node: &FirstNode, master: &Address) -> String {
    let cluster = quoted(&node.cluster_file);
    let begin = if node.already {
        "this store is the first node of a cluster already; nothing was changed"
    } else {
        "this store is the first node of a cluster now"
    };
    let mut out = format!(
        "{begin}\n\nOn this machine, as services that start with it (the location says where it stands, /REGION/RACK/HOST):\n\n"
    );
    for line in here(node, master, &cluster) {
        writeln!(out, "  {line}").expect("a String grows");
    }
    let roles = if node.nuwa.is_some() { "master, chunkserver, nuwa" } else { "master, chunkserver" };
    write!(
        out,
        "\nOn others, with a copy of {cluster} and, in `keys` beside it, of authority.pub and of the key and capability of what runs there \
         ({roles}; admin for mounts); copies of the files follow by themselves:\n\n  \
         pangu-chunkserver --listen tcp://HOST:PORT --data DIR --location /REGION/RACK/HOST --cluster cluster.toml\n  \
         pangu-master --join --id N --listen tcp://HOST:PORT --data DIR --cluster cluster.toml\n  \
         pangu master add tcp://HOST:PORT\n"
    )
    .expect("a String grows");
    if node.nuwa.is_some() {
        out.push_str(NUWA_ON_OTHERS);
    }
    out
}

/// The same of Nuwa's members, which nobody looks up anywhere else.
const NUWA_ON_OTHERS: &str = "  \
     nuwa-server --join --id N --listen tcp://HOST:PORT --data DIR --cluster cluster.toml\n  \
     nuwa member add tcp://HOST:PORT\n\n\
     Whoever is to find Nuwa when this machine is away needs those members, too, under `nuwa` in its copy of cluster.toml.\n";

/// The commands for this machine.
fn here(node: &FirstNode, master: &Address, cluster: &str) -> Vec<String> {
    let server =
        |program: &str, dir: &PathBuf| format!("{program} --id 1 --data {} --cluster {cluster}", quoted(dir));
    let (host, port) = place(master);
    let chunkserver = |(n, dir): (u16, &PathBuf)| {
        let port = port.saturating_add(PORT_STEP).saturating_add(n - 1);
        let dir = quoted(dir);
        format!(
            "pangu-chunkserver --listen tcp://{host}:{port} --data {dir} --location /local/rack{n}/host --cluster {cluster}"
        )
    };
    let mut lines: Vec<String> = node.nuwa.iter().map(|dir| server("nuwa-server", dir)).collect();
    lines.push(server("pangu-master", &node.master));
    lines.extend((1..).zip(&node.chunkservers).map(chunkserver));
    let nuwa = if node.nuwa.is_some() { " --nuwa DIR" } else { "" };
    lines.push(format!("pangu-fuse MOUNT{nuwa} --cluster {cluster}"));
    lines
}

fn place(master: &Address) -> (&str, u16) {
    match master {
        Address::Tcp(place) => {
            let (host, port) = place.rsplit_once(':').unwrap_or((place, ""));
            (host, port.parse().unwrap_or_default())
        }
        // It was refused before.
        Address::Unix(_) => ("HOST", 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_start() {
        let node = FirstNode {
            cluster_file: "/d/cluster.toml".into(),
            master: "/d/master".into(),
            nuwa: None,
            chunkservers: vec!["/d/chunkserver-1".into(), "/d/chunkserver-2".into()],
            already: false,
        };
        let said = text(&node, &"tcp://10.0.0.1:7101".parse().unwrap());
        for line in [
            "  pangu-master --id 1 --data /d/master --cluster /d/cluster.toml\n",
            "--listen tcp://10.0.0.1:7111 --data /d/chunkserver-1 --location /local/rack1/host ",
            "--listen tcp://10.0.0.1:7112 --data /d/chunkserver-2 --location /local/rack2/host ",
            "pangu master add ",
        ] {
            assert!(said.contains(line), "{line}\n{said}");
        }
        assert!(!said.contains("nuwa"), "{said}");
        let node = FirstNode { nuwa: Some("/d/nuwa".into()), ..node };
        let said = text(&node, &"tcp://10.0.0.1:7101".parse().unwrap());
        for line in [
            "  nuwa-server --id 1 --data /d/nuwa --cluster /d/cluster.toml\n",
            "  pangu-fuse MOUNT --nuwa DIR --cluster /d/cluster.toml\n",
            "  nuwa-server --join --id N ",
            "  nuwa member add tcp://HOST:PORT\n",
        ] {
            assert!(said.contains(line), "{line}\n{said}");
        }
    }
}
