//! docs/gatewayworker.md against the code: every row of its tables is done as it says, across two nodes
//! on Redis.
//!
//! Each test is a row. What it asks the relay for has to be what the row names, and all of it: a request
//! that the row does not name, or one that it names and nothing asks for, fails.

mod closing;
mod events;
mod members;
mod online;
mod scene;
mod sending;
mod sessions;
mod settings;

use std::collections::BTreeSet;

use scene::Scene;

/// Makes a test of each row, and the list of them.
macro_rules! rows {
    ($($call:literal => $module:ident :: $name:ident $([$($setting:expr),+])?),+ $(,)?) => {
        const EXERCISED: &[&str] = &[$($call),+];
        mod row {
            $(
                #[tokio::test]
                async fn $name() {
                    let mut scene = super::Scene::start($call, &[$($($setting),+)?]).await;
                    super::$module::$name(&mut scene).await;
                    scene.assert_all_was_asked();
                }
            )+
        }
    };
}

rows! {
    "sendToAll($message)" => sending::send_to_all,
    "sendToAll($message, $client_id_array)" => sending::send_to_all_of_a_list,
    "sendToAll($message, null, $exclude_client_id)" => sending::send_to_all_but_some,
    "sendToAll($message, null, null, $raw)" => sending::send_to_all_raw,
    "sendToClient($client_id, $message)" => sending::send_to_client,
    "sendToCurrentClient($message)" => sending::send_to_current_client [("EVENTS", "true")],
    "sendToUid($uid, $message)" => sending::send_to_uid,
    "sendToUid($uid_array, $message)" => sending::send_to_uids,
    "sendToGroup($group, $message)" => sending::send_to_group,
    "sendToGroup($group_array, $message)" => sending::send_to_groups,
    "sendToGroup($group, $message, $exclude_client_id)" => sending::send_to_group_but_some,
    "sendToGroup($group, $message, null, $raw)" => sending::send_to_group_raw,
    "closeClient($client_id, $message)" => closing::close_client,
    "closeCurrentClient($message)" => closing::close_current_client [("EVENTS", "true")],
    "destoryClient($client_id)" => closing::destroy_client,
    "destoryCurrentClient()" => closing::destroy_current_client [("EVENTS", "true")],
    "isOnline($client_id)" => online::is_online,
    "isUidOnline($uid)" => online::is_uid_online,
    "getAllClientIdList()" => online::get_all_client_id_list,
    "getAllClientIdCount()" => online::get_all_client_id_count,
    "getAllClientCount()" => online::get_all_client_count,
    "getClientIdByUid($uid)" => online::get_client_id_by_uid,
    "getClientIdListByGroup($group)" => online::get_client_id_list_by_group,
    "getClientIdCountByGroup($group)" => online::get_client_id_count_by_group,
    "getClientCountByGroup($group)" => online::get_client_count_by_group,
    "bindUid($client_id, $uid)" => members::bind_uid,
    "unbindUid($client_id, $uid)" => members::unbind_uid,
    "getUidByClientId($client_id)" => members::get_uid_by_client_id,
    "getAllUidList()" => members::get_all_uid_list,
    "getAllUidCount()" => members::get_all_uid_count,
    "getUidListByGroup($group)" => members::get_uid_list_by_group,
    "getUidCountByGroup($group)" => members::get_uid_count_by_group,
    "joinGroup($client_id, $group)" => members::join_group,
    "leaveGroup($client_id, $group)" => members::leave_group,
    "ungroup($group)" => members::ungroup,
    "getAllGroupIdList()" => members::get_all_group_id_list,
    "getAllGroupUidList()" => members::get_all_group_uid_list,
    "getAllGroupUidCount()" => members::get_all_group_uid_count,
    "getAllGroupClientIdList()" => members::get_all_group_client_id_list,
    "getAllGroupClientIdCount()" => members::get_all_group_client_id_count,
    "getSession($client_id)" => sessions::get_session,
    "setSession($client_id, $session)" => sessions::set_session,
    "updateSession($client_id, $session)" => sessions::update_session,
    "getAllClientSessions()" => sessions::get_all_client_sessions,
    "getClientSessionsByGroup($group)" => sessions::get_client_sessions_by_group,
    "getAllClientInfo()" => sessions::get_all_client_info,
    "getClientInfoByGroup($group)" => sessions::get_client_info_by_group,
    "$_SESSION" => sessions::session_variable,
    "onWorkerStart($worker)" => events::on_worker_start [("EVENTS", "true")],
    "onConnect($client_id)" => events::on_connect [("EVENTS", "true")],
    "onWebSocketConnect($client_id, $data)" => events::on_web_socket_connect [("EVENTS", "true")],
    "onMessage($client_id, $message)" => events::on_message [("EVENTS", "true")],
    "onClose($client_id)" => events::on_close [("EVENTS", "true")],
    "onWorkerStop($worker)" => events::on_worker_stop [("EVENTS", "true")],
    "Context::$client_id" => events::context [("EVENTS", "true")],
    "$gateway->pingInterval" => settings::ping_interval [("HEARTBEAT", "2s")],
    "$gateway->pingNotResponseLimit" => settings::ping_not_response_limit [("HEARTBEAT", "1s")],
    "$gateway->pingData" => settings::ping_data [("HEARTBEAT", "2s")],
    "$registerAddress" => settings::register_address,
    "$secretKey" => settings::secret_key,
}

#[test]
fn every_row_of_the_page_is_exercised_and_every_exercise_has_a_row() {
    let rows = scene::rows();
    let on_page: BTreeSet<&str> = rows.iter().map(|(call, _)| call.as_str()).collect();
    let exercised: BTreeSet<&str> = EXERCISED.iter().copied().collect();
    assert_eq!(on_page, exercised);
    assert_eq!(rows.len(), on_page.len(), "a call has one row");
}

/// The public functions of `GatewayWorker\Lib\Gateway`, version 3 and 4.
#[test]
fn the_page_names_every_call_of_gateway() {
    let named = scene::page();
    for call in [
        "sendToAll",
        "sendToClient",
        "sendToCurrentClient",
        "isUidOnline",
        "isOnline",
        "getAllClientInfo",
        "getAllClientSessions",
        "getClientInfoByGroup",
        "getClientSessionsByGroup",
        "getAllClientIdCount",
        "getAllClientCount",
        "getClientIdCountByGroup",
        "getClientCountByGroup",
        "getClientIdListByGroup",
        "getAllClientIdList",
        "getClientIdByUid",
        "getUidListByGroup",
        "getUidCountByGroup",
        "getAllUidList",
        "getAllUidCount",
        "getUidByClientId",
        "getAllGroupIdList",
        "getAllGroupUidCount",
        "getAllGroupUidList",
        "getAllGroupClientIdList",
        "getAllGroupClientIdCount",
        "closeClient",
        "closeCurrentClient",
        "destoryClient",
        "destoryCurrentClient",
        "bindUid",
        "unbindUid",
        "joinGroup",
        "leaveGroup",
        "ungroup",
        "sendToUid",
        "sendToGroup",
        "setSocketSession",
        "setSession",
        "updateSession",
        "getSession",
        "setBusinessWorker",
        "onWorkerStart",
        "onConnect",
        "onWebSocketConnect",
        "onMessage",
        "onClose",
        "onWorkerStop",
    ] {
        assert!(named.contains(&format!("`{call}")), "the page does not name {call}");
    }
}
