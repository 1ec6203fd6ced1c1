//! What is told, when, and again until it is committed.

use windlass_protocol::{
    ids::Release,
    message::OperationReport,
    status::{Condition, OperationPhase, SyncStatus},
};

use super::*;

fn view(health: HealthStatus) -> StatusView {
    StatusView {
        application: NamespacedName::new("argocd", "shop"),
        uid: "u1".into(),
        release: Release(1),
        target: None,
        applied: None,
        sync: SyncStatus::Synced,
        health,
        worst_health: health,
        message: String::new(),
        operation: None,
        resources: Vec::new(),
        sync_result: Vec::new(),
        conditions: Vec::new(),
        end: None,
    }
}

fn reporter() -> Reporter {
    Reporter::new(&Limits::default())
}

/// Everything a fresh connection sends: (number, health, worst, has a detail uploaded).
fn sent(reporter: &Reporter) -> Vec<(u64, HealthStatus, HealthStatus)> {
    let mut cursor = Cursor::default();
    let mut all = Vec::new();
    while let Some(uploads) = reporter.next_upload(&mut cursor) {
        for upload in uploads {
            if let ReceiptUpload::Receipts { receipts } = upload {
                all.extend(receipts.into_iter().filter_map(|(seq, receipt)| match receipt {
                    Receipt::V1(receipt) => Some((seq.0, receipt.health, receipt.worst_health)),
                    _ => None,
                }));
            }
        }
    }
    all
}

#[test]
fn only_changes_are_told_and_the_worst_is_kept() {
    use HealthStatus::{Degraded, Healthy};
    let mut reporter = reporter();
    reporter.offer(&view(Healthy), Millis(1));
    reporter.offer(&view(Healthy), Millis(2));
    assert_eq!(sent(&reporter), [(1, Healthy, Healthy)]);
    reporter.offer(&view(Degraded), Millis(3));
    reporter.offer(&view(Healthy), Millis(4));
    assert_eq!(sent(&reporter), [(3, Healthy, Degraded)], "a newer receipt replaces, and remembers the worst");
    reporter.committed(ReceiptSeq(3));
    assert_eq!(sent(&reporter), []);
    reporter.offer(&view(Healthy), Millis(5));
    assert_eq!(sent(&reporter), [], "nothing changed");
}

#[test]
fn a_failure_between_two_looks_is_told() {
    use HealthStatus::{Degraded, Healthy};
    let mut reporter = reporter();
    reporter.offer(&view(Healthy), Millis(1));
    reporter.committed(ReceiptSeq(1));
    reporter.offer(&StatusView { worst_health: Degraded, ..view(Healthy) }, Millis(2));
    assert_eq!(sent(&reporter), [(2, Healthy, Degraded)]);
}

#[test]
fn details_are_rare_but_not_at_the_end_of_an_operation() {
    let with = |text: &str, phase: Option<OperationPhase>| with_operation(text, phase, 0);
    let mut reporter = reporter();
    assert_eq!(reporter.offer(&with("a", None), Millis(0)), None);
    assert_eq!(details(&reporter), 1);
    reporter.committed(ReceiptSeq(1));
    assert_eq!(reporter.offer(&with("b", Some(OperationPhase::Running)), Millis(1_000)), Some(Millis(10_000)));
    assert_eq!(details(&reporter), 0);
    assert_eq!(reporter.offer(&with("c", Some(OperationPhase::Succeeded)), Millis(2_000)), None);
    assert_eq!(details(&reporter), 1);
    assert_eq!(reporter.offer(&with("d", Some(OperationPhase::Succeeded)), Millis(3_000)), Some(Millis(12_000)));
    assert_eq!(reporter.offer(&with("d", Some(OperationPhase::Succeeded)), Millis(12_000)), None);
    assert_eq!(details(&reporter), 1);
}

#[test]
fn the_first_failure_of_an_operation_is_told_at_once() {
    let with = |text: &str, retries| with_operation(text, Some(OperationPhase::Running), retries);
    let mut reporter = reporter();
    assert_eq!(reporter.offer(&with("a", 0), Millis(0)), None);
    reporter.committed(ReceiptSeq(1));
    assert_eq!(reporter.offer(&with("b", 1), Millis(1_000)), None);
    assert_eq!(details(&reporter), 1);
    reporter.committed(ReceiptSeq(2));
    assert_eq!(reporter.offer(&with("c", 2), Millis(2_000)), Some(Millis(11_000)), "the next ones are not");
    assert_eq!(details(&reporter), 0);
}

#[test]
fn a_detail_of_nothing_does_not_hold_back_the_first_that_says_something() {
    let mut reporter = reporter();
    reporter.offer(&StatusView { sync: SyncStatus::Unknown, ..view(HealthStatus::Unknown) }, Millis(0));
    assert_eq!(details(&reporter), 0);
    reporter.offer(&StatusView { sync: SyncStatus::OutOfSync, ..view(HealthStatus::Missing) }, Millis(100));
    assert_eq!(details(&reporter), 1);
}

fn details(reporter: &Reporter) -> usize {
    let uploads = reporter.next_upload(&mut Cursor::default()).unwrap_or_default();
    uploads.iter().filter(|upload| matches!(upload, ReceiptUpload::Detail { .. })).count()
}

fn with_operation(text: &str, phase: Option<OperationPhase>, retries: u32) -> StatusView {
    StatusView {
        conditions: vec![Condition::new("X", text)],
        operation: phase.map(|phase| OperationReport {
            id: None,
            bundle: Digest::of(b"b"),
            phase,
            message: String::new(),
            started_at: Millis(1),
            finished_at: None,
            retries,
        }),
        ..view(HealthStatus::Healthy)
    }
}

#[test]
fn receipts_are_sent_again_until_committed() {
    let mut reporter = reporter();
    reporter.offer(&view(HealthStatus::Healthy), Millis(1));
    let mut cursor = Cursor::default();
    assert!(reporter.next_upload(&mut cursor).is_some());
    assert!(reporter.next_upload(&mut cursor).is_none());
    assert!(reporter.next_upload(&mut Cursor::default()).is_some(), "a new connection starts over");
    reporter.committed(ReceiptSeq(1));
    assert!(reporter.next_upload(&mut Cursor::default()).is_none());
}

#[test]
fn ends_are_told_once_and_come_back_when_committed() {
    let mut reporter = reporter();
    let application = NamespacedName::new("argocd", "shop");
    reporter.offer(&view(HealthStatus::Healthy), Millis(1));
    reporter.ending(&application, "u1", &End::Failing("forbidden".into()));
    reporter.ending(&application, "u1", &End::Failing("forbidden".into()));
    assert_eq!(reporter.len(), 2);
    reporter.ended(&application, "u1");
    let seq = ReceiptSeq(3);
    assert_eq!(reporter.committed(seq), [(application, "u1".to_owned())]);
    assert_eq!(reporter.len(), 0);
}

#[test]
fn the_queue_is_bounded() {
    let mut reporter = Reporter::new(&Limits { receipt_queue: 16, ..Limits::default() });
    for number in 0..100 {
        reporter.orphaned(&NamespacedName::new("argocd", format!("a{number}")), "u");
    }
    assert_eq!(reporter.len(), 16);
}
