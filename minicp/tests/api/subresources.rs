//! Parts of objects with ways of their own.

use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "a"}}, "spec": {"containers": [{"name": "main", "image": "i",
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}}]}})
}

/// A pod that a node runs and is well.
async fn running(s: &mut Session, name: &str) {
    assert_eq!(s.post(PODS, pod(name)).await.0, 201);
    let bound = json!({"target": {"kind": "Node", "name": "n"}});
    assert_eq!(s.post(&format!("{PODS}/{name}/binding"), bound).await.0, 201);
    let well = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(s.patch(&format!("{PODS}/{name}/status"), "merge-patch+json", well).await.0, 200);
}

#[test]
fn evictions_keep_to_the_budget() {
    run(|mut s| async move {
        for name in ["one", "two"] {
            running(&mut s, name).await;
        }
        let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
        let budget = |name: &str, least: &str| json!({"metadata": {"name": name}, "spec": {"minAvailable": least, "selector": {"matchLabels": {"app": "a"}}}});
        assert_eq!(s.post(budgets, budget("b", "50%")).await.0, 201);
        let evict = |name: &str| {
            (
                format!("{PODS}/{name}/eviction"),
                json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}}),
            )
        };
        let (path, body) = evict("one");
        assert_eq!(s.post(&path, body).await.0, 201);
        let (path, body) = evict("two");
        let (code, told) = s.post(&path, body).await;
        assert_eq!(
            (code, told["message"].as_str().unwrap(), &told["reason"]),
            (429, "Cannot evict pod as it would violate the pod's disruption budget.", &json!("TooManyRequests"))
        );
        assert_eq!(told["details"]["causes"][0]["reason"], "DisruptionBudget");
        // One that nobody runs yet serves nobody.
        s.post(PODS, pod("waiting")).await;
        let (path, body) = evict("waiting");
        assert_eq!(s.post(&path, body).await.0, 201);
        // A second budget over the same pods is a mistake that is told.
        s.post(budgets, budget("c", "0")).await;
        let (path, body) = evict("two");
        let (code, told) = s.post(&path, body).await;
        assert!(
            code == 500 && told["message"].as_str().unwrap().contains("more than one PodDisruptionBudget"),
            "{told}"
        );
        for name in ["b", "c"] {
            s.delete(&format!("{budgets}/{name}"), Value::Null).await;
        }
        let (path, body) = evict("two");
        assert_eq!(s.post(&path, body).await.0, 201);
    });
}

#[test]
fn pods_are_resized_and_debugged_in_place_only() {
    run(|mut s| async move {
        running(&mut s, "p").await;
        let p = format!("{PODS}/p");
        let more = json!({"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "300m"}}}]}});
        assert_eq!(s.patch(&p, "strategic-merge-patch+json", more.clone()).await.0, 422, "not by an update");
        let (code, new) = s.patch(&format!("{p}/resize"), "strategic-merge-patch+json", more).await;
        assert_eq!((code, &new["spec"]["containers"][0]["resources"]["limits"]["cpu"]), (200, &json!("300m")), "{new}");
        let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i"}]}});
        assert_eq!(s.patch(&p, "strategic-merge-patch+json", debug.clone()).await.0, 422);
        let (code, new) = s.patch(&format!("{p}/ephemeralcontainers"), "strategic-merge-patch+json", debug).await;
        assert_eq!((code, &new["spec"]["ephemeralContainers"][0]["name"]), (200, &json!("d")), "{new}");
    });
}

#[test]
fn metadata_alone_can_be_had_and_collections_deleted() {
    run(|mut s| async move {
        for name in ["a", "b", "c"] {
            s.post(MAPS, map(name)).await;
        }
        let meta = |list: &str| format!("application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1");
        let (_, _, body) = s.raw("GET", &format!("{MAPS}/a"), "", &meta(""), Vec::new()).await;
        let one: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&one["kind"], &one["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("a")));
        assert!(one.get("data").is_none());
        let (_, _, body) = s.raw("GET", &format!("{MAPS}?limit=2"), "", &meta("List"), Vec::new()).await;
        let list: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("PartialObjectMetadataList"), 2));
        assert!(list["items"][0].get("data").is_none() && list["metadata"]["continue"].is_string());
        let (code, gone) = s.delete(&format!("{MAPS}?labelSelector=n+in+(a,b)"), Value::Null).await;
        assert_eq!((code, gone["items"].as_array().map(Vec::len)), (200, Some(2)), "{gone}");
        let (_, left) = s.get(MAPS).await;
        assert_eq!(left["items"].as_array().unwrap().iter().filter(|m| m["metadata"]["name"] == "c").count(), 1);
    });
}
