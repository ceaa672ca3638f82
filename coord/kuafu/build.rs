//! Generates the service Kuafu's own tests and benchmarks call.

fn main() -> Result<(), kuafu_build::Error> {
    kuafu_build::compile(&["proto/test/v1/echo.proto"], &["proto"])
}
