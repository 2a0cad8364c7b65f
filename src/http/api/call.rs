//! What the API can be asked to do, and who does it. Called for a request that [`super::routes`] found.

use crate::http::Reply;
use crate::http::api::ask::Ask;
use crate::http::api::problem::Problem;
use crate::http::api::{deployment, devices, members, messages};

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    PostMessage,
    ListMessages,
    GetMessage,
    PutStatus,
    ListDevices,
    GetDevice,
    ForgetDevice,
    ListOnline,
    CloseDevice,
    ListBarred,
    GetBar,
    BarDevice,
    UnbarDevice,
    GetAttrs,
    PutAttrs,
    PatchAttrs,
    ListGroups,
    GetGroup,
    JoinGroup,
    LeaveGroup,
    DissolveGroup,
    ListUsers,
    GetUser,
    BindUser,
    UnbindUser,
    ShopStats,
    ListConnections,
    GetConnection,
    CloseConnection,
    Broadcast,
    ListShops,
    ListNodes,
    Stats,
}

impl Call {
    /// Does it.
    ///
    /// # Errors
    /// The [`Problem`] to answer.
    pub async fn perform(self, ask: Ask) -> Result<Reply, Problem> {
        match self {
            Call::PostMessage => messages::post(ask).await,
            Call::ListMessages => messages::list(ask).await,
            Call::GetMessage => messages::get(ask).await,
            Call::PutStatus => messages::put_status(ask).await,
            Call::ListDevices => devices::list(ask).await,
            Call::GetDevice => devices::get(ask).await,
            Call::ForgetDevice => devices::forget(ask).await,
            Call::ListOnline => devices::online(ask).await,
            Call::CloseDevice => devices::close(ask).await,
            Call::ListBarred => devices::list_barred(ask).await,
            Call::GetBar => devices::get_bar(ask).await,
            Call::BarDevice => devices::bar(ask).await,
            Call::UnbarDevice => devices::unbar(ask).await,
            Call::GetAttrs => devices::attrs(ask).await,
            Call::PutAttrs => devices::set_attrs(ask).await,
            Call::PatchAttrs => devices::patch_attrs(ask).await,
            Call::ListGroups => members::groups(ask).await,
            Call::GetGroup => members::group(ask).await,
            Call::JoinGroup => members::join(ask).await,
            Call::LeaveGroup => members::leave(ask).await,
            Call::DissolveGroup => members::dissolve(ask).await,
            Call::ListUsers => members::users(ask).await,
            Call::GetUser => members::user(ask).await,
            Call::BindUser => members::bind(ask).await,
            Call::UnbindUser => members::unbind(ask).await,
            Call::ShopStats => deployment::shop_stats(ask).await,
            Call::ListConnections => devices::connections(ask).await,
            Call::GetConnection => devices::connection(ask).await,
            Call::CloseConnection => devices::close_connection(ask).await,
            Call::Broadcast => messages::broadcast(ask).await,
            Call::ListShops => deployment::shops(ask).await,
            Call::ListNodes => deployment::nodes(ask).await,
            Call::Stats => deployment::stats(ask).await,
        }
    }
}
