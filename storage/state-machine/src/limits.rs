//! The bounds of the contract, with their reasons. The API checks them first; apply checks again.

/// Names of users, rooms and locks, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 128;
/// A message's text: 64 KiB, so that a page of 500 stays below 32 MiB.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Messages of one batch.
pub const BATCH_MESSAGES_MAX: usize = 1000;
/// `client_id` and idempotency keys, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// A list's page.
pub const LIMIT_MAX: u32 = 500;
pub const LIMIT_DEFAULT: u32 = 50;
/// A request body, which is also the largest command.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// A message's kind: a name that is chosen from a handful, so shorter than others.
pub const KIND_BYTES_MAX: usize = 64;
/// A user's display name: two lines of text.
pub const DISPLAY_NAME_BYTES_MAX: usize = 256;
/// RFC 5321: the longest address that mail can be sent to.
pub const EMAIL_BYTES_MAX: usize = 254;
/// An argon2id hash in PHC form takes about 100.
pub const PASSWORD_HASH_BYTES_MAX: usize = 512;
/// A room's title: a few lines of text.
pub const TITLE_BYTES_MAX: usize = 1024;
/// Attributes as canonical JSON: they are read with every list, so a page of 500 stays at 8 MiB.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 << 10;
/// Members that a room is created with, so that one command writes a bounded number of rows.
pub const NEW_ROOM_MEMBERS_MAX: usize = 1000;
/// The end of the year 9999, the last time that RFC 3339 can write.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// Memberships that one command ends: about four small rows each. A user with more of them cannot
/// be deleted before he has left some; of a deleted room the index rows of further members stay,
/// and are skipped by whoever reads them.
pub const MEMBERSHIPS_ENDED_MAX: usize = 10_000;

/// How long an idempotency key is remembered, on the replicated clock: 24 hours.
pub const DEDUP_TTL_MS: u64 = 24 * 60 * 60 * 1000;
/// Idempotency keys that are remembered at once. A record and its place in the queue of expiry
/// take about 100 bytes, so the table stays below 2 GB of disk, and 185 new keys a second can be
/// taken the whole day. At the bound new keys are refused as rate limited; none is forgotten early.
pub const DEDUP_RECORDS_MAX: u64 = 16_000_000;
/// Expired records that one command sweeps. More than the one that it may add, so that the table
/// shrinks.
pub const DEDUP_SWEPT_MAX: usize = 4;

/// A lock's ttl. Below the shortest, a renewal over a network would be a matter of luck; above the longest, a
/// dead holder is in everybody's way.
pub const LOCK_TTL_MS_MIN: u64 = 100;
pub const LOCK_TTL_MS_MAX: u64 = 3_600_000;
/// How long somebody may wait for a lock: as long as it can be held without a renewal.
pub const LOCK_WAIT_MS_MAX: u64 = LOCK_TTL_MS_MAX;
/// What a holder says of himself, as JSON: it is read with every list.
pub const LOCK_DATA_BYTES_MAX: usize = 4 << 10;
/// The owner of a lock: a label for people, as long as a name.
pub const LOCK_OWNER_BYTES_MAX: usize = NAME_BYTES_MAX;
/// Who waits for one lock. At the bound more are refused as rate limited: the one behind a thousand others is
/// better told now. One command may have to walk over all of them.
pub const LOCK_WAITERS_MAX: u32 = 1000;
/// Of those who wait, so many are shown; their number is always.
pub const LOCK_WAITERS_SHOWN_MAX: usize = 100;
/// Locks, held or not: some 200 bytes each. At the bound new names are refused as rate limited.
pub const LOCKS_MAX: u64 = 1_000_000;
/// A lock that nobody holds is forgotten after this time on the replicated clock: its last token is no longer
/// shown. Tokens grow all the same, because they are made of revisions.
pub const LOCK_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// A session, on the replicated clock.
pub const SESSION_TTL_MS_MIN: u64 = 1000;
pub const SESSION_TTL_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;
/// Sessions of one user. At the bound a new one ends the oldest, so that nobody is locked out.
pub const USER_SESSIONS_MAX: usize = 100;
/// The device that a session is for: a label.
pub const DEVICE_BYTES_MAX: usize = 128;

/// Earlier texts of one message. At the bound an edit is refused as a conflict.
pub const MESSAGE_REVISIONS_MAX: usize = 1000;

/// What has expired and is swept by one entry: bounds the time that applying it takes.
pub const TICK_SWEPT_MAX: usize = 256;

const _: () = assert!(LOCK_WAITERS_SHOWN_MAX <= LOCK_WAITERS_MAX as usize);
const _: () = assert!(DEDUP_SWEPT_MAX > 1);
const _: () = assert!(KIND_BYTES_MAX <= NAME_BYTES_MAX);
const _: () = assert!(TEXT_BYTES_MAX + ATTRIBUTES_BYTES_MAX < BODY_BYTES_MAX);
