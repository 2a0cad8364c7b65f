//! Groups and users of a shop, and the devices that belong to them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::http::Reply;
use crate::http::api::ask::Ask;
use crate::http::api::problem::{Problem, no_content};
use crate::ids::{DeviceId, Name, ShopId};
use crate::message::{MembershipChange, MembershipStep};
use crate::session::Failure;
use crate::store::Device;

/// `GET /v1/shops/{shop}/groups`
pub async fn groups(ask: Ask) -> Result<Reply, Problem> {
    let names: BTreeSet<Name> = devices(&ask).await?.into_iter().flat_map(|device| device.membership.groups).collect();
    ask.page(names.into_iter().collect(), |name| Cow::Borrowed(name.as_str()))
}

/// `GET /v1/shops/{shop}/groups/{group}`
pub async fn group(ask: Ask) -> Result<Reply, Problem> {
    let group: Name = ask.path.required("group")?;
    members(&ask, |device| device.membership.groups.contains(&group)).await
}

/// `GET /v1/shops/{shop}/users`
pub async fn users(ask: Ask) -> Result<Reply, Problem> {
    let names: BTreeSet<Name> = devices(&ask).await?.into_iter().filter_map(|device| device.membership.user).collect();
    ask.page(names.into_iter().collect(), |name| Cow::Borrowed(name.as_str()))
}

/// `GET /v1/shops/{shop}/users/{user}`
pub async fn user(ask: Ask) -> Result<Reply, Problem> {
    let user: Name = ask.path.required("user")?;
    members(&ask, |device| device.membership.user.as_ref() == Some(&user)).await
}

/// `PUT /v1/shops/{shop}/groups/{group}/devices/{device}`
pub async fn join(ask: Ask) -> Result<Reply, Problem> {
    let step = MembershipStep::Join(ask.path.required("group")?);
    change(&ask, Some(ask.path.required("device")?), step).await
}

/// `DELETE /v1/shops/{shop}/groups/{group}/devices/{device}`
pub async fn leave(ask: Ask) -> Result<Reply, Problem> {
    let step = MembershipStep::Leave(ask.path.required("group")?);
    ask_to_part(&ask, step).await
}

/// `DELETE /v1/shops/{shop}/groups/{group}`
pub async fn dissolve(ask: Ask) -> Result<Reply, Problem> {
    let step = MembershipStep::Leave(ask.path.required("group")?);
    change(&ask, None, step).await
}

/// `PUT /v1/shops/{shop}/users/{user}/devices/{device}`
pub async fn bind(ask: Ask) -> Result<Reply, Problem> {
    let step = MembershipStep::Bind(ask.path.required("user")?);
    change(&ask, Some(ask.path.required("device")?), step).await
}

/// `DELETE /v1/shops/{shop}/users/{user}/devices/{device}`
pub async fn unbind(ask: Ask) -> Result<Reply, Problem> {
    let step = MembershipStep::Unbind(Some(ask.path.required("user")?));
    ask_to_part(&ask, step).await
}

/// A device that is not there is no member either.
async fn ask_to_part(ask: &Ask, step: MembershipStep) -> Result<Reply, Problem> {
    let parted = change(ask, Some(ask.path.required("device")?), step).await;
    match parted {
        Err(problem) if problem.status == hyper::StatusCode::NOT_FOUND => Ok(no_content()),
        parted => parted,
    }
}

async fn change(ask: &Ask, device: Option<DeviceId>, step: MembershipStep) -> Result<Reply, Problem> {
    let shop: ShopId = ask.path.required("shop")?;
    match ask.relay.change_membership(&shop, &MembershipChange { device, step }).await {
        Ok(()) => Ok(no_content()),
        Err(failure) => Err(failure.into()),
    }
}

async fn devices(ask: &Ask) -> Result<Vec<Device>, Problem> {
    let shop: ShopId = ask.path.required("shop")?;
    Ok(ask.relay.store.devices(&shop).await.map_err(Failure::from)?)
}

async fn members(ask: &Ask, is_member: impl Fn(&Device) -> bool) -> Result<Reply, Problem> {
    let members = devices(ask).await?.into_iter().filter(|device| is_member(device)).map(|device| device.device);
    ask.page(members.collect(), |device: &DeviceId| Cow::Borrowed(device.as_str()))
}
