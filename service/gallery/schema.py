"""The tables of the gallery's database, version by version. What a release has once written is never edited.

`row` names a crop in every table and is never used twice; times are microseconds since 1970 UTC.
"""

from __future__ import annotations

MIGRATIONS = (
    (
        """CREATE TABLE gallery (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            model_sha256 TEXT NOT NULL, model_name TEXT NOT NULL, dim INTEGER NOT NULL,
            created_at INTEGER NOT NULL) STRICT""",
        """CREATE TABLE crops (
            row INTEGER PRIMARY KEY AUTOINCREMENT, crop_id TEXT NOT NULL UNIQUE,
            identity TEXT, camera TEXT, captured_at INTEGER, track TEXT, meta TEXT,
            enrolled_at INTEGER NOT NULL) STRICT""",
        """CREATE TABLE embeddings (
            row INTEGER PRIMARY KEY REFERENCES crops (row) ON DELETE CASCADE,
            vector BLOB NOT NULL, crc32 INTEGER NOT NULL) STRICT""",
        """CREATE TABLE pictures (
            row INTEGER PRIMARY KEY REFERENCES crops (row) ON DELETE CASCADE,
            jpeg BLOB NOT NULL) STRICT""",
        """CREATE TABLE changes (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL,
            op TEXT NOT NULL CHECK (op IN ('enrol', 'relabel', 'replace', 'delete'))) STRICT""",
    ),
    (
        # No crop has the identity that it is marked against: whoever writes either of them sees to that.
        """CREATE TABLE not_identity (
            row INTEGER NOT NULL REFERENCES crops (row) ON DELETE CASCADE, identity TEXT NOT NULL,
            PRIMARY KEY (row, identity)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX not_identity_by_identity ON not_identity (identity)",
        # Holds all that a list of identities says, so that it need not read the crops themselves.
        """CREATE INDEX crops_by_identity ON crops (identity, camera, captured_at)
            WHERE identity IS NOT NULL""",
    ),
    (
        # The one snapshot of the index that is accepted, and the last change that it holds.
        """CREATE TABLE snapshot (
            id INTEGER PRIMARY KEY CHECK (id = 1), sequence INTEGER NOT NULL, token TEXT NOT NULL) STRICT""",
    ),
    (
        # A change of models under way: whose embeddings `reembedded` holds, until every crop has one.
        """CREATE TABLE reembedding (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            model_sha256 TEXT NOT NULL, model_name TEXT NOT NULL, dim INTEGER NOT NULL) STRICT""",
        """CREATE TABLE reembedded (
            row INTEGER PRIMARY KEY REFERENCES crops (row) ON DELETE CASCADE,
            vector BLOB NOT NULL, crc32 INTEGER NOT NULL) STRICT""",
    ),
)
