//! What a token opens and what it does not: the table of `docs/token.md`, row by row, and what refusals say.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::tokens::claims;
use common::{BEGIN, END, NOW, key};
use coord_types::{DataId, SessionId};
use proptest::prelude::*;
use zhongkui::token::NotDataRights;
use zhongkui::{Claims, DataRequest, DataRights, Rights, Scope, Timestamp, TokenRefusal, Validity, admit};

/// What the claims are for.
fn request() -> DataRequest {
    DataRequest {
        holder: key(2).public().id(),
        session: Some(SessionId(5)),
        data: DataId(9),
        needs: Rights::WRITE,
        epoch_min: 3,
    }
}

#[test]
fn what_it_is_for_is_admitted() {
    let ask = |claims: Claims, request: DataRequest| admit(&claims, &request, NOW);
    assert_eq!(ask(claims(), request()), Ok(()));
    let read = DataRequest { session: None, needs: Rights::READ, ..request() };
    assert_eq!(ask(claims(), read), Ok(()));
    assert_eq!(ask(claims(), DataRequest { needs: Rights::READ | Rights::WRITE, ..request() }), Ok(()));
    // A server that does not know the newest epoch yet.
    assert_eq!(ask(claims(), DataRequest { epoch_min: 2, ..request() }), Ok(()));
    let everything = Claims { scope: Scope::Everything, ..claims() };
    assert_eq!(ask(everything, DataRequest { data: DataId(1234), ..request() }), Ok(()));
    assert_eq!(ask(Claims { rights: DataRights::READ, ..claims() }, read), Ok(()));
}

#[test]
fn clocks_may_differ_by_a_minute_at_the_beginning_and_not_at_the_end() {
    let ask = |now| admit(&claims(), &request(), now);
    let scope = claims().scope;
    assert_eq!(ask(Timestamp(BEGIN.0 - 60)), Ok(()));
    let now = Timestamp(BEGIN.0 - 61);
    let early = TokenRefusal::NotYetValid { scope, not_before: BEGIN, now };
    assert_eq!(ask(now), Err(early));
    assert!(early.retryable());
    assert_eq!(ask(Timestamp(END.0 - 1)), Ok(()));
    let late = TokenRefusal::Expired { scope, not_after: END, now: END };
    assert_eq!(ask(END), Err(late));
    assert!(!late.retryable());
}

/// Each change, the refusal, and words it has to say.
fn refusals() -> Vec<(Claims, DataRequest, Timestamp, TokenRefusal, Vec<String>)> {
    let (claims, request) = (claims(), request());
    let scope = claims.scope;
    let soon = Validity::new(Timestamp(NOW.0 + 61), END).unwrap();
    let (ours, theirs) = (key(2).public().id(), key(3).public().id());
    let words = |words: &[&dyn std::fmt::Display]| words.iter().map(ToString::to_string).collect();
    vec![
        (
            Claims { validity: soon, ..claims },
            request,
            NOW,
            TokenRefusal::NotYetValid { scope, not_before: soon.not_before(), now: NOW },
            words(&[&"data 9", &soon.not_before(), &NOW, &"clock is slow"]),
        ),
        (
            claims,
            request,
            END,
            TokenRefusal::Expired { scope, not_after: END, now: END },
            words(&[&"data 9", &"until", &END, &"clock is fast", &"The master gives a new one"]),
        ),
        (
            claims,
            DataRequest { holder: theirs, ..request },
            NOW,
            TokenRefusal::OtherHolder { scope, holder: ours, proved: theirs },
            words(&[&ours, &theirs]),
        ),
        (
            claims,
            DataRequest { session: Some(SessionId(6)), ..request },
            NOW,
            TokenRefusal::OtherSession { scope, session: SessionId(5), stamped: SessionId(6) },
            words(&[&"for session 5", &"by session 6"]),
        ),
        (
            claims,
            DataRequest { data: DataId(10), ..request },
            NOW,
            TokenRefusal::OtherData { scope, data: DataId(10) },
            words(&[&"for data 9", &"about data 10"]),
        ),
        (
            Claims { rights: DataRights::READ, ..claims },
            request,
            NOW,
            TokenRefusal::RightMissing { scope, has: Rights::READ, needs: Rights::WRITE },
            words(&[&"to read", &"needs: write"]),
        ),
        (
            claims,
            DataRequest { epoch_min: 4, ..request },
            NOW,
            TokenRefusal::OlderEpoch { scope, epoch: 3, epoch_min: 4 },
            words(&[&"epoch 3", &"epoch 4"]),
        ),
    ]
}

#[test]
fn each_reason_to_refuse_is_found_and_said() {
    for (claims, request, now, refusal, words) in refusals() {
        assert_eq!(admit(&claims, &request, now), Err(refusal));
        let said = refusal.to_string();
        for word in words {
            assert!(said.contains(&word), "'{word}' is not in: {said}");
        }
    }
}

#[test]
fn there_is_no_right_to_data_but_reading_and_writing() {
    assert_eq!(DataRights::new(Rights::READ | Rights::WRITE), Ok(DataRights::BOTH));
    for rights in [Rights::empty(), Rights::LOCK, Rights::READ | Rights::SUPERUSER, Rights::all()] {
        assert_eq!(DataRights::new(rights), Err(NotDataRights(rights)));
    }
    let needs = Rights::READ | Rights::ADMINISTER;
    let refusal = admit(&claims(), &DataRequest { needs, ..request() }, NOW).unwrap_err();
    assert!(matches!(refusal, TokenRefusal::RightMissing { .. }), "{refusal}");
}

#[test]
fn what_never_expires_never_expires() {
    let validity = Validity::new(BEGIN, Timestamp::FOREVER).unwrap();
    assert_eq!(admit(&Claims { validity, ..claims() }, &request(), Timestamp::FOREVER), Ok(()));
}

/// Which rows of the table fail, in its order.
fn failing(claims: &Claims, request: &DataRequest, now: Timestamp) -> Vec<&'static str> {
    let rows = [
        (u64::from(now.0) + 60 >= u64::from(claims.validity.not_before().0), "not yet valid"),
        (now < claims.validity.not_after(), "expired"),
        (claims.holder == request.holder, "other holder"),
        (request.session.is_none_or(|session| session == claims.session), "other session"),
        (claims.scope == Scope::Everything || claims.scope == Scope::Data(request.data), "other data"),
        (request.needs - claims.rights.rights() == Rights::empty(), "right missing"),
        (claims.cluster_epoch >= request.epoch_min, "older epoch"),
    ];
    rows.into_iter().filter(|(holds, _)| !holds).map(|(_, row)| row).collect()
}

fn row(refusal: &TokenRefusal) -> &'static str {
    match refusal {
        TokenRefusal::NotYetValid { .. } => "not yet valid",
        TokenRefusal::Expired { .. } => "expired",
        TokenRefusal::OtherHolder { .. } => "other holder",
        TokenRefusal::OtherSession { .. } => "other session",
        TokenRefusal::OtherData { .. } => "other data",
        TokenRefusal::RightMissing { .. } => "right missing",
        TokenRefusal::OlderEpoch { .. } => "older epoch",
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// Few values of each, so that most of it often fits.
    #[test]
    fn it_is_admitted_if_and_only_if_every_row_holds(
        (holder, session, data, rights) in (2..4_u8, 5..7_u64, 8..11_u64, 1..4_u16),
        (stamped, asked, needs, epoch_min) in (prop::option::of(5..7_u64), 9..11_u64, 1..4_u16, 2..5_u64),
        (from, now) in (0..200_u32, 0..200_u32),
    ) {
        let claims = Claims {
            holder: key(holder).public().id(),
            session: SessionId(session),
            scope: if data == 8 { Scope::Everything } else { Scope::Data(DataId(data)) },
            rights: DataRights::new(Rights::from_bits_truncate(rights)).unwrap(),
            cluster_epoch: 3,
            validity: Validity::new(Timestamp(from), Timestamp(from + 50)).unwrap(),
        };
        let request = DataRequest {
            holder: key(2).public().id(),
            session: stamped.map(SessionId),
            data: DataId(asked),
            needs: Rights::from_bits_truncate(needs),
            epoch_min,
        };
        let now = Timestamp(now);
        let said = admit(&claims, &request, now).err().map(|refusal| row(&refusal));
        prop_assert_eq!(said, failing(&claims, &request, now).first().copied());
    }
}
