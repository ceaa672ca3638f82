//! One member alone, event by event: what it asks for, and what it refuses. The simulated cluster (`cluster.rs`) checks that the invariants hold
//! over all members; here stand the steps that are wrong only together with a fault it seldom or never comes to.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod alone {
    mod bounds;
    mod fences;
    mod filling;
    pub(crate) mod member;
    mod primary;
    mod secondary;
}
