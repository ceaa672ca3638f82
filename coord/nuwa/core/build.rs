//! Generates the records of the store.

fn main() -> Result<(), kuafu_build::Error> {
    kuafu_build::compile_messages(&["proto/nuwa/state/v1/state.proto"], &["proto"])
}
