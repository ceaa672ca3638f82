//! What is left behind of a run that failed.

use std::path::{Path, PathBuf};

/// Copies what explains a failure to a folder that stays, and says where that is. A copy that fails is no reason to say nothing
/// of the run.
pub(crate) fn kept(folder: &Path, what: &str, histories: Option<&serde_json::Value>) -> String {
    match keep(folder, what, histories) {
        Ok(kept) => kept.display().to_string(),
        Err(error) => format!("not kept: {error:#}"),
    }
}

fn keep(folder: &Path, what: &str, histories: Option<&serde_json::Value>) -> anyhow::Result<PathBuf> {
    let kept = tempfile::Builder::new().prefix(&format!("{what}-")).tempdir()?.keep();
    for entry in std::fs::read_dir(folder.join("log"))? {
        let entry = entry?;
        // A folder is what one of the servers keeps for itself.
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), kept.join(entry.file_name()))?;
        }
    }
    if let Some(histories) = histories {
        std::fs::write(kept.join("histories.json"), histories.to_string())?;
    }
    Ok(kept)
}
