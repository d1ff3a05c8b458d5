//! A "store" that keeps everything but its promise: it locks nothing. The conformance suite must find it out.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use joblock::clock::{Boot, Wall};
use joblock::name::{LockName, RunId, Token};
use joblock::store::pruning::{Prune, Pruned};
use joblock::store::record::{Attempted, End, Query, RunRecord, Tail};
use joblock::store::{
    About, Attempt, Expiry, Finding, Grant, History, LockRequest, Locks, Observed, Queued,
    Recorded, Renewal, Request, Store, StoreError,
};

/// A folder with a token and a file for each run.
pub struct NoLock(pub PathBuf);

fn unusable(error: &std::io::Error) -> StoreError {
    StoreError::Unusable(error.to_string())
}

fn save(folder: &Path, record: &RunRecord) -> Result<Recorded, StoreError> {
    let json = serde_json::to_vec(record).expect("a record is JSON");
    fs::write(folder.join(format!("{}.run", record.run_id)), json).map_err(|e| unusable(&e))?;
    Ok(Recorded::Stored)
}

struct NoGrant {
    folder: PathBuf,
    record: RunRecord,
    token: Token,
}

impl Grant for NoGrant {
    fn token(&self) -> Token {
        self.token
    }
    fn expiry(&self) -> Expiry {
        Expiry::Never
    }
    fn renew(&mut self) -> Result<Renewal, StoreError> {
        Ok(Renewal::Renewed)
    }
    fn inherit(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn save_tail(&mut self, _: &Tail) -> Result<(), StoreError> {
        Ok(())
    }
    fn release(self: Box<Self>, end: &End, _: Option<&Tail>) -> Result<Recorded, StoreError> {
        save(&self.folder, &end.of(&self.record, self.token))
    }
}

impl Locks for NoLock {
    fn try_acquire(
        &self,
        request: &LockRequest<'_>,
        _: Option<Boot>,
    ) -> Result<Attempt, StoreError> {
        let path = self.0.join("token");
        let last: u64 = fs::read_to_string(&path)
            .ok()
            .and_then(|t| t.parse().ok())
            .unwrap_or(0);
        std::thread::yield_now();
        fs::write(&path, (last + 1).to_string()).map_err(|e| unusable(&e))?;
        let token = Token(last + 1);
        let record = RunRecord {
            token: Some(token),
            ..request.record.clone()
        };
        save(&self.0, &record)?;
        Ok(Attempt::Granted(Box::new(NoGrant {
            folder: self.0.clone(),
            record,
            token,
        })))
    }
    fn queue(&self, _: &LockName, _: Option<u32>) -> Result<Result<Queued, u32>, StoreError> {
        Ok(Err(0))
    }
    fn waiting(&self, _: &LockName) -> Result<u32, StoreError> {
        Ok(0)
    }
    fn inspect(&self, _: &LockName) -> Result<Observed, StoreError> {
        Ok(Observed::nobody())
    }
    fn locks(&self) -> Result<Vec<LockName>, StoreError> {
        Ok(Vec::new())
    }
    fn request_stop(&self, _: &LockName, _: &Request) -> Result<(), StoreError> {
        Ok(())
    }
    fn revoke(&self, _: &LockName, _: &Request) -> Result<(), StoreError> {
        Ok(())
    }
    fn lock_file(&self, lock: &LockName) -> PathBuf {
        self.0.join(lock.as_str())
    }
    fn probe(&self) -> Vec<Finding> {
        Vec::new()
    }
}

impl History for NoLock {
    fn attempted(&self, record: &RunRecord, outcome: &Attempted) -> Result<Recorded, StoreError> {
        save(&self.0, &outcome.of(record))
    }
    fn end_of(
        &self,
        record: &RunRecord,
        token: Token,
        end: &End,
        _: Option<&Tail>,
    ) -> Result<Recorded, StoreError> {
        save(&self.0, &end.of(record, token))
    }
    fn runs(&self, _: &Query) -> Result<Vec<RunRecord>, StoreError> {
        let files = fs::read_dir(&self.0)
            .map_err(|e| unusable(&e))?
            .flatten()
            .map(|f| f.path());
        let runs = files.filter(|path| path.extension().is_some_and(|e| e == "run"));
        Ok(runs
            .filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok())
            .collect())
    }
    fn by_prefix(&self, _: &str) -> Result<Vec<RunRecord>, StoreError> {
        Ok(Vec::new())
    }
    fn last_success(&self, _: &str) -> Result<Option<Wall>, StoreError> {
        Ok(None)
    }
    fn jobs(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }
    fn tail(&self, _: &RunId) -> Result<Option<Tail>, StoreError> {
        Ok(None)
    }
    fn prune(&self, _: &Prune) -> Result<Pruned, StoreError> {
        Ok(Pruned::default())
    }
}

impl Store for NoLock {
    fn about(&self) -> About {
        About {
            url: "nolock:".into(),
            id: String::new(),
            shared: false,
            format: 0,
            file_system: String::new(),
        }
    }
}
