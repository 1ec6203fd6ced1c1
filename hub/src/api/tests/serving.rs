//! Over TLS, and what the hub offers beyond objects.

use std::net::{Ipv4Addr, SocketAddr};

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use windlass_transport::{
    endpoint::{PeerAdmission, ServerTls},
    https::{HttpsLimits, HttpsListener},
    identity::{
        HubNames, Identity, IssuingAuthority, KeyMaterial, TrustBundle, TrustDomain, TrustDomainName, Validity,
    },
};

use super::fixture::*;
use crate::{api::serve, replica::wall_clock};

const DAY: u64 = 86_400;

/// TLS of a hub on this machine, and the root to believe in.
fn tls() -> (ServerTls, TrustBundle) {
    let now = wall_clock().as_secs();
    let validity = || Validity::new(now - DAY, now + DAY).unwrap();
    let name = TrustDomainName::new("fleet.example").unwrap();
    let root = TrustDomain::create(&name, KeyMaterial::generate().unwrap(), 1, validity()).unwrap();
    let key = KeyMaterial::generate().unwrap();
    let chain = root.sign_issuer(&key.public(), "n1", 2, validity()).unwrap();
    let issuer = IssuingAuthority::from_pem(&chain, key).unwrap();
    let key = KeyMaterial::generate().unwrap();
    let names = HubNames::new(&["localhost", "127.0.0.1"]).unwrap();
    let chain = issuer.issue_hub(&key.public(), "n1", &names, 10, validity()).unwrap();
    let identity = Identity::new(&chain, key).unwrap();
    let bundle = root.bundle().unwrap();
    (ServerTls::new(identity, bundle.clone(), PeerAdmission::Enrolment).unwrap(), bundle)
}

#[tokio::test(flavor = "multi_thread")]
async fn https_speaks_both_versions_and_drains() {
    windlass_transport::install_crypto_provider();
    let hub = Hub::start().await;
    let (tls, bundle) = tls();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = HttpsListener::bind(any, &tls, HttpsLimits::default()).unwrap();
    let url = format!("https://{}", listener.local_address());
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, hub.router.clone(), shutdown.clone()));
    let root = reqwest::Certificate::from_pem(bundle.pem().as_bytes()).unwrap();
    let client = || reqwest::Client::builder().tls_certs_only([root.clone()]);
    for (client, version) in [
        (client().build().unwrap(), reqwest::Version::HTTP_2),
        (client().http1_only().build().unwrap(), reqwest::Version::HTTP_11),
    ] {
        let response = client.get(format!("{url}/version")).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
        let refused = client.get(format!("{url}/api/v1/namespaces")).send().await.unwrap();
        assert_eq!(refused.status().as_u16(), 401);
    }
    // A watch under way ends when the server does.
    let client = client().build().unwrap();
    let watch = client.get(format!("{url}/api/v1/namespaces?watch=1")).bearer_auth("admin-token");
    let watch = watch.send().await.unwrap();
    assert_eq!(watch.status().as_u16(), 200);
    shutdown.cancel();
    let text = tokio::time::timeout(PATIENCE, watch.text()).await.unwrap().unwrap();
    assert!(text.lines().all(|line| line.starts_with("{\"type\":\"ADDED\"")), "{text}");
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_asked() {
    let hub = Hub::start().await;
    hub.make(CLUSTERS, &json!({"metadata": {"name": "eu-1"}})).await;
    let asked = hub.post(&format!("{CLUSTERS}/eu-1/token"), &json!({"spec": {"expirationSeconds": 600}})).await;
    assert_eq!((asked.code, &asked.body["status"]["token"]), (CREATED, &json!("eu-1 for user:admin in 600 s")));
    assert_eq!(asked.body["status"]["hubs"], json!(["hub:7443"]));
    let without_body = hub.ask("POST", &format!("{CLUSTERS}/eu-1/token"), "", "").await;
    assert_eq!(without_body.body["status"]["token"], "eu-1 for user:admin in 3600 s");
    assert_eq!(hub.post(&format!("{CLUSTERS}/none/token"), &json!({})).await.code, 404);
    let too_long = json!({"spec": {"expirationSeconds": 1_000_000_000}});
    assert_eq!(hub.post(&format!("{CLUSTERS}/eu-1/token"), &too_long).await.code, 422);

    let status = hub.get("/hub/status").await.body;
    assert_eq!((&status["status"]["role"], &status["status"]["sessions"]), (&json!("Leader"), &json!(3)));
    assert_eq!(status["status"]["voters"][0]["name"], "hub-1");

    hub.make(APPLICATIONS, &application("web")).await;
    let manifests = hub.get(&format!("{APPLICATIONS}/web/manifests")).await.body;
    assert_eq!(manifests["items"][0]["data"], json!({"a": "++++++++"}));
    assert_eq!(hub.get(&format!("{APPLICATIONS}/none/manifests")).await.code, 404);

    let set = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet", "metadata": {"name": "s"}});
    let generated = hub.post(&format!("{SETS}/generate"), &set).await;
    assert_eq!(generated.body["items"][0]["metadata"], json!({"name": "s", "namespace": "argocd"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_need_no_account() {
    let hub = Hub::start().await;
    let request = |event: Option<&str>| {
        let request = Request::post("/api/webhook");
        let request = event.into_iter().fold(request, |request, event| request.header("X-GitHub-Event", event));
        request.body(Body::from("hello")).unwrap()
    };
    let taken = read(hub.send(request(Some("push"))).await).await;
    assert_eq!((taken.code, &taken.body["message"]), (200, &json!("push with 5 bytes")));
    let refused = read(hub.send(request(None)).await).await;
    assert_eq!((refused.code, refused.failure()), (401, "Unauthorized: Unauthorized".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_may_ask_who_they_are() {
    let hub = Hub::start().await;
    let review = async |token: &str, path: &str| -> Value {
        let request = Request::post(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        read(hub.send(request.body(Body::from("{}")).unwrap()).await).await.body["status"].clone()
    };
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    assert_eq!(review("guest-token", who).await["userInfo"]["username"], "guest");
    let may = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(review("guest-token", may).await["allowed"], false);
    assert_eq!(review("admin-token", may).await["allowed"], true);
}
