//! What kuafu-build generates compiles, and has the names and ids it promises.

mod proto {
    #![allow(dead_code, unreachable_pub)]
    kuafu::include_proto!("feitian.kuafu.test.v1");
}

#[test]
fn method_table() {
    let echo = &proto::ECHO_METHODS[0];
    assert_eq!((echo.service, echo.name, echo.idempotent), ("feitian.kuafu.test.v1.Echo", "Echo", true));
    assert!(!proto::ECHO_METHODS[1].idempotent);
    assert!(!proto::FILE_DESCRIPTOR_SET.is_empty());
}
