//! Fuxi's master: the spool, the scheduler, and who asks them.
