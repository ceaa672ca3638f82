//! What a master's answers make of a chunkserver: leases, tables that make no sense, data that may go.

use std::time::Duration;

use chunkserver_api::pb;
use coord_types::{DiskId, GroupId};
use kuafu::CallOptions;

use crate::process::metric;
use crate::support::{Cluster, eventually, key, pattern};

/// A lease speaks of the epochs in the master's table: who has not got that table has no lease, whatever the master says.
#[tokio::test]
async fn without_a_lease_all_other_members_decide_about_a_read() {
    let mut cluster = Cluster::start().await;
    let data = pattern(1, 4096);
    cluster.write(key(1, 0), 0, &data).await;
    cluster.master.set_lease(Duration::from_millis(300));
    cluster.master.withhold_tables();
    // It begins without a lease, and is granted none.
    cluster.kill(1);
    cluster.start_server(1);
    cluster.wait_active(0..3).await;
    eventually("a read is asked about", || async {
        let read = cluster.try_read(1, key(1, 0), 0..4096).await.expect("all members are there");
        assert!(read.data[..] == data[..]);
        (metric(&cluster, 1, "pangu_chunkserver_reads_without_lease_total").await > 0).then_some(())
    })
    .await;
    cluster.kill(2);
    let alone = cluster.try_read(1, key(1, 0), 0..4096).await;
    assert!(matches!(&alone, Err(error) if error.retryable()), "{alone:?}");
}

/// The master waits for it, and all members of the server's groups with it.
#[tokio::test]
async fn a_lease_that_is_called_back_is_given_up_before_the_next_heartbeat_is_due() {
    const PERIOD: Duration = Duration::from_secs(3);
    let mut cluster = Cluster::start().await;
    for at in 0..3 {
        cluster.kill(at);
    }
    cluster.master.set_heartbeat(PERIOD);
    for at in 0..3 {
        cluster.start_server(at);
    }
    cluster.wait_active(0..3).await;
    cluster.master.forget_heartbeats();
    eventually("it has a lease", || async {
        cluster.master.heartbeats().iter().any(|(_, leased)| *leased).then_some(())
    })
    .await;
    cluster.master.set_lease(Duration::ZERO);
    let took = eventually("the lease is given up", || async {
        let heartbeats = cluster.master.heartbeats();
        let (last, _) = heartbeats.iter().rev().find(|(_, leased)| *leased).expect("it had one");
        let (given_up, leased) = heartbeats.last().expect("there are some");
        (!leased).then(|| *given_up - *last)
    })
    .await;
    assert!(took < PERIOD / 2, "{took:?}");
}

/// Also while nothing is written: how else is a disk that is out of use seen to be fast again.
#[tokio::test]
async fn a_heartbeat_tells_what_a_write_takes() {
    let cluster = Cluster::start().await;
    eventually("all disks are known", || async {
        let latency = |at| {
            let last = cluster.master.last_heartbeat(cluster.disk_id(at))?;
            Some(last.disks[0].write_latency_us).filter(|us| *us > 0)
        };
        (0..3).all(|at| latency(at).is_some()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_heartbeat_tells_which_groups_much_is_written_to() {
    let cluster = Cluster::start().await;
    let primary = cluster.primary(GroupId(1));
    let told = |at| cluster.master.last_heartbeat(cluster.disk_id(at)).unwrap_or_default().loads;
    let data = pattern(1, 65_536);
    eventually("the primary tells", || async {
        cluster.write(key(1, 0), 0, &data).await;
        let others = (0..3).filter(|at| *at != primary).all(|at| told(at).is_empty());
        assert!(others, "they lead other groups");
        told(primary).iter().any(|load| load.group == 1 && load.write_bytes_per_s >= 65_536).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_table_that_makes_no_sense_changes_nothing() {
    let cluster = Cluster::start().await;
    let heartbeats = || metric(&cluster, 0, "pangu_chunkserver_heartbeats_total");
    cluster.master.spoil_tables(true);
    let before = heartbeats().await;
    eventually("heartbeats go on", || async { (heartbeats().await > before + 2).then_some(()) }).await;
    cluster.write(key(1, 0), 0, &pattern(1, 5000)).await;
    assert!(cluster.same_everywhere(key(1, 0)).await[..5000] == pattern(1, 5000));
    cluster.master.spoil_tables(false);
}

#[tokio::test]
async fn a_server_asks_until_each_of_its_disks_has_a_number() {
    let mut cluster = Cluster::start().await;
    cluster.kill(2);
    cluster.master.leave_out_disks_once();
    cluster.start_server(2);
    cluster.wait_active(2..3).await;
}

/// I7: only on the master's word, which it gives for each group.
#[tokio::test]
async fn what_is_left_of_a_group_goes_when_the_master_says_so() {
    let mut cluster = Cluster::start().await;
    for (group, index) in [(1, 0), (1, 1), (2, 0)] {
        cluster.write(key(group, index), 0, &pattern(1, 5000)).await;
    }
    let disk = DiskId(3);
    let at = (0..3).find(|at| cluster.disk_id(*at) == disk).expect("the third that registered");
    cluster.master.may_drop(GroupId(2));
    for group in [1, 2] {
        cluster.master.take_out(disk, GroupId(group));
    }
    eventually("the master is asked about both", || async {
        (cluster.master.asked_to_drop() == [1, 2]).then_some(())
    })
    .await;
    let admin = pb::ChunkAdminClient::new(cluster.raw(at));
    eventually("a chunk is gone", || async {
        let options = CallOptions::within(Duration::from_secs(5));
        let status = admin.status(pb::StatusRequest {}, &options).await.expect("a status").message;
        (status.disks[0].chunks < 3).then_some(())
    })
    .await;
    cluster.stop(at).await;
    let report = chunkserver_server::verify::verify(&cluster.disk(at)).await.expect("a disk");
    assert_eq!(report.chunks, 2, "those of the group that was not let go");
}

/// What was seen is remembered over a restart; a master that shows less gives no lease, no table, and no leave to delete.
#[tokio::test]
async fn a_master_whose_state_is_older_is_not_followed() {
    let mut cluster = Cluster::start().await;
    cluster.write(key(1, 0), 0, &pattern(1, 5000)).await;
    let disk = DiskId(3);
    let at = (0..3).find(|at| cluster.disk_id(*at) == disk).expect("the third that registered");
    for (epoch, behind) in [(4, 0), (5, 1000)] {
        cluster.kill(at);
        cluster.master.show(epoch, behind);
        cluster.master.forget_heartbeats();
        cluster.start_server(at);
        eventually("it asks in vain", || async { (cluster.master.looks() > 3).then_some(()) }).await;
        assert!(cluster.master.heartbeats().is_empty(), "epoch {epoch}, {behind} behind: it follows");
        cluster.master.show(5, 0);
        cluster.wait_active(at..at + 1).await;
    }
    // It runs, and the master becomes an older one.
    cluster.master.show(4, 0);
    cluster.master.may_drop(GroupId(1));
    cluster.master.take_out(disk, GroupId(1));
    let refused = || metric(&cluster, at, "pangu_chunkserver_heartbeats_failed_total");
    let before = refused().await;
    eventually("heartbeats are in vain", || async { (refused().await > before + 20).then_some(()) }).await;
    assert_eq!(cluster.master.asked_to_drop(), [0_u32; 0], "it took the table");
    // The cluster epoch is raised: it goes on, and remembers.
    cluster.master.show(6, 0);
    eventually("it takes the table", || async { (!cluster.master.asked_to_drop().is_empty()).then_some(()) })
        .await;
    cluster.kill(at);
    cluster.master.show(5, 0);
    cluster.master.forget_heartbeats();
    cluster.start_server(at);
    eventually("it asks in vain", || async { (cluster.master.looks() > 3).then_some(()) }).await;
    assert!(cluster.master.heartbeats().is_empty());
    cluster.master.show(6, 0);
    eventually("it follows", || async { (!cluster.master.heartbeats().is_empty()).then_some(()) }).await;
}

/// Masters that were made anew, or whose address now belongs to others, once had their table taken by servers that were running: only a
/// registration asked which cluster it was. The table of another cluster, with a word that data may go, costs data.
#[tokio::test]
async fn no_table_is_taken_from_masters_of_another_cluster() {
    let cluster = Cluster::start().await;
    let disk = DiskId(3);
    let at = (0..3).find(|at| cluster.disk_id(*at) == disk).expect("the third that registered");
    cluster.write(key(1, 0), 0, &pattern(1, 5000)).await;
    cluster.master.belong_to("another");
    cluster.master.may_drop(GroupId(1));
    cluster.master.take_out(disk, GroupId(1));
    let refused = || metric(&cluster, at, "pangu_chunkserver_heartbeats_failed_total");
    let before = refused().await;
    eventually("heartbeats are in vain", || async { (refused().await > before + 20).then_some(()) }).await;
    assert_eq!(cluster.master.asked_to_drop(), [0_u32; 0], "it took the table");
    cluster.master.belong_to("test");
    eventually("it takes the table", || async { (!cluster.master.asked_to_drop().is_empty()).then_some(()) })
        .await;
}
