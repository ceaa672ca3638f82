//! `zhongkui init`

use zhongkui_access::KeyDirectory;
use zhongkui_access::directory::{ADMIN, CHUNKSERVER, MASTER, NUWA};

pub(crate) fn run(keys: &KeyDirectory) -> anyhow::Result<()> {
    anyhow::ensure!(
        !keys.path("authority", "key").exists(),
        "{} is there already: this cluster has its keys",
        keys.path("authority", "key").display()
    );
    keys.init()?;
    println!("authority {}", keys.authority()?.public().id());
    println!("  {}   keep it here: whoever has it is the cluster", keys.path("authority", "key").display());
    println!("  {}   for every server and client", keys.path("authority", "pub").display());
    for (name, whose) in [
        (MASTER, "for each pangu-master"),
        (CHUNKSERVER, "for each pangu-chunkserver"),
        (NUWA, "for each nuwa-server"),
        (ADMIN, "for whoever runs the cluster, and for mounts that many people use"),
    ] {
        println!("  {} and .cap   {whose}", keys.path(name, "key").display());
    }
    Ok(())
}
