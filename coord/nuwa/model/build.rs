//! Generates the messages of the tree and of its commands.

fn main() -> Result<(), kuafu_build::Error> {
    kuafu_build::compile_messages(&["proto/nuwa/v1/tree.proto"], &["proto"])
}
