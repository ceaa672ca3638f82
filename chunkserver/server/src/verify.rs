//! `pangu-chunkserver verify DIR`: checks a disk that no process uses, and says what it found.

use std::path::Path;
use std::time::{Duration, Instant};

use chunkserver_engine::{OpenError, VerifyReport};

/// Progress is shown this often, and not at all for a check that is quicker.
const SHOW_EVERY: Duration = Duration::from_secs(2);

/// Checks the disk in `dir`; progress goes to standard error.
///
/// # Errors
/// If there is no disk, it is in use, or its format is too new. What is wrong with a disk is in the report.
pub async fn verify(dir: &Path) -> Result<VerifyReport, OpenError> {
    let mut shown = Instant::now();
    chunkserver_engine::verify(dir, &mut |progress| {
        if shown.elapsed() >= SHOW_EVERY {
            shown = Instant::now();
            let mib = |bytes: u64| bytes >> 20;
            let percent = progress.checked_bytes * 100 / progress.total_bytes.max(1);
            eprintln!("{percent:3} %  {} of {} MiB", mib(progress.checked_bytes), mib(progress.total_bytes));
        }
    })
    .await
}
