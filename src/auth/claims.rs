//! What a token says of a device, once its signature is known to be good.
//!
//! Owns the claims and what they grant. Never looks at a signature and never reads a clock. Used by the
//! devices' door.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::token::Refusal;
use crate::ids::{DeviceId, IdError, Name, ShopId};
use crate::message::Role;
use crate::session::Grant;

/// The claims of a token.
pub type Claims = Map<String, Value>;

/// What the claims grant to a device that logs in as this one at this second. A claim that is null
/// counts as absent.
///
/// # Errors
/// The token is not for this login, or not for this time.
pub fn grant(claims: &Claims, shop: &ShopId, device: &DeviceId, role: Role, now_s: u64) -> Result<Grant, Refusal> {
    let expires_at_s = seconds(claims, "exp", f64::floor)?.ok_or(Refusal::Absent { claim: "exp" })?;
    if now_s >= expires_at_s {
        return Err(Refusal::Expired { ago_s: now_s - expires_at_s });
    }
    if let Some(valid_at_s) = seconds(claims, "nbf", f64::ceil)?
        && now_s < valid_at_s
    {
        return Err(Refusal::NotYetValid { in_s: valid_at_s - now_s });
    }
    if required::<ShopId>(claims, "shop")? != *shop {
        return Err(Refusal::Other { claim: "shop" });
    }
    if required::<DeviceId>(claims, "device")? != *device {
        return Err(Refusal::Other { claim: "device" });
    }
    let named = text(claims, "role")?.ok_or(Refusal::Absent { claim: "role" })?;
    if [Role::Main, Role::Sub].iter().all(|role| role.as_str() != named) {
        return Err(Refusal::Claim { claim: "role", wanted: "main or sub" });
    }
    if named != role.as_str() {
        return Err(Refusal::Other { claim: "role" });
    }
    let groups = texts(claims, "groups")?.map(|groups| {
        let groups = groups.into_iter().map(|group| group.parse().map_err(|cause| name("groups", cause)));
        groups.collect::<Result<BTreeSet<Name>, _>>().map(|groups| groups.into_iter().collect())
    });
    Ok(Grant {
        groups: groups.transpose()?,
        user: optional(claims, "user")?,
        ops: texts(claims, "ops")?.map(|ops| ops.into_iter().collect()),
        expires_at_s: Some(expires_at_s),
    })
}

fn claim<'a>(claims: &'a Claims, claim: &str) -> Option<&'a Value> {
    claims.get(claim).filter(|value| !value.is_null())
}

fn text<'a>(claims: &'a Claims, name: &'static str) -> Result<Option<&'a str>, Refusal> {
    let value = claim(claims, name).map(|value| value.as_str().ok_or(Refusal::Claim { claim: name, wanted: "a text" }));
    value.transpose()
}

fn texts<'a>(claims: &'a Claims, name: &'static str) -> Result<Option<Vec<&'a str>>, Refusal> {
    let wrong = Refusal::Claim { claim: name, wanted: "a list of texts" };
    let values = claim(claims, name).map(|value| {
        let values = value.as_array().and_then(|values| values.iter().map(Value::as_str).collect());
        values.ok_or(wrong)
    });
    values.transpose()
}

fn optional<T: FromStr<Err = IdError>>(claims: &Claims, claim: &'static str) -> Result<Option<T>, Refusal> {
    text(claims, claim)?.map(|text| text.parse().map_err(|cause| name(claim, cause))).transpose()
}

fn required<T: FromStr<Err = IdError>>(claims: &Claims, claim: &'static str) -> Result<T, Refusal> {
    optional(claims, claim)?.ok_or(Refusal::Absent { claim })
}

fn name(claim: &'static str, cause: IdError) -> Refusal {
    Refusal::Name { claim, cause }
}

/// A time in seconds since 1970. It may have a fraction, as the standard allows, which is cut so that the
/// token is never good for longer than it says.
fn seconds(claims: &Claims, name: &'static str, cut: fn(f64) -> f64) -> Result<Option<u64>, Refusal> {
    let time = |value: &Value| {
        let fraction = || value.as_f64().filter(|time| *time >= 0.0 && *time < u64::MAX as f64);
        value.as_u64().or_else(|| fraction().map(|time| cut(time) as u64))
    };
    let wrong = Refusal::Claim { claim: name, wanted: "a number of seconds since 1970" };
    claim(claims, name).map(|value| time(value).ok_or(wrong)).transpose()
}
