//! Tests by plain calls, one file a subject; `random` throws everything at once.

mod avoiding;
mod fairness;
mod fixtures;
mod placing;
mod preempting;
mod quotas;
mod random;
mod recovering;
mod saying;
