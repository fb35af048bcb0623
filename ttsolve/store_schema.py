"""The store's tables and views, and their migrations.

Migrations are only ever appended: a file that knows more of them than we do is a newer version's.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations

MIGRATIONS = Migrations("ttsolve")

TABLES = """
CREATE TABLE models (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE          -- a generator's or verifier's: file and prompt format
);
CREATE TABLE samplings (
  id INTEGER PRIMARY KEY,
  settings TEXT NOT NULL UNIQUE      -- JSON: temperature, top_k, top_p, min_p, max_tokens, steps
);
CREATE TABLE pairs (
  key TEXT PRIMARY KEY,              -- hash of the pair's checksums and prompt format
  name TEXT NOT NULL,
  generator INTEGER NOT NULL REFERENCES models,
  verifier INTEGER REFERENCES models
) WITHOUT ROWID;
CREATE TABLE steps (
  id TEXT PRIMARY KEY,               -- hash of everything below and, through parent, above it
  parent TEXT REFERENCES steps,      -- NULL: the root, whose text is the problem
  text TEXT NOT NULL,
  tokens INTEGER NOT NULL,
  ids TEXT NOT NULL                  -- JSON: the generator's own token ids
) WITHOUT ROWID;
CREATE TABLE samples (
  generator INTEGER NOT NULL REFERENCES models,
  sampling INTEGER NOT NULL REFERENCES samplings,
  prefix TEXT NOT NULL REFERENCES steps,
  seed INTEGER NOT NULL,
  root TEXT NOT NULL REFERENCES steps,
  last TEXT NOT NULL REFERENCES steps,
  finish TEXT,                       -- stop, length; NULL: it may be continued
  PRIMARY KEY (generator, sampling, prefix, seed)
) WITHOUT ROWID;
CREATE TABLE scores (
  verifier INTEGER NOT NULL REFERENCES models,
  step TEXT NOT NULL REFERENCES steps,
  score REAL NOT NULL,               -- P(correct | up to and with this step), 0..1
  PRIMARY KEY (verifier, step)
) WITHOUT ROWID;
CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,          -- hash of all that was asked: asking it again is the same run
  asked TEXT NOT NULL,               -- UTC, last time
  status TEXT NOT NULL,              -- running (or killed), interrupted, failed, done
  problem TEXT NOT NULL,
  root TEXT NOT NULL REFERENCES steps,
  problem_id TEXT NOT NULL,
  reference TEXT,
  pair TEXT NOT NULL,
  generator INTEGER NOT NULL REFERENCES models,
  verifier INTEGER REFERENCES models,
  strategy TEXT NOT NULL,
  settings TEXT NOT NULL,            -- JSON
  seed INTEGER NOT NULL,
  budget INTEGER NOT NULL,           -- units
  unknown_words TEXT,                -- JSON: those from outside the pair's world; NULL: not asked
  answer TEXT,
  share REAL,
  correct INTEGER,                   -- 1, 0; NULL: not graded
  bill TEXT,                         -- JSON: Usage, of the last time that something was computed
  tree TEXT                          -- JSON: how the search went
);
CREATE INDEX runs_by_time ON runs (asked);
CREATE INDEX runs_by_root ON runs (root);
CREATE TABLE run_candidates (
  run INTEGER NOT NULL REFERENCES runs,
  place INTEGER NOT NULL,            -- 0, 1, … as the strategy returned them
  last TEXT NOT NULL REFERENCES steps,
  finish TEXT,
  answer TEXT,
  score REAL,                        -- of the whole solution, as the vote used it
  PRIMARY KEY (run, place)
) WITHOUT ROWID;
"""

VIEWS = """
CREATE VIEW history AS
  SELECT id, asked, status, problem, answer, share, correct, pair, strategy, budget, seed,
    json_extract(bill, '$.units') AS units,
    json_extract(bill, '$.generated_tokens') AS generated_tokens,
    json_extract(bill, '$.recalled_tokens') AS recalled_tokens,
    json_extract(bill, '$.seconds') AS seconds
  FROM runs ORDER BY asked DESC, id DESC;
CREATE VIEW candidates AS
  SELECT c.run, c.place, r.problem, c.answer, c.score, c.finish, (
    WITH RECURSIVE up(parent, text, height) AS (
      SELECT parent, text, 0 FROM steps WHERE id = c.last
      UNION ALL
      SELECT s.parent, s.text, height + 1 FROM up JOIN steps s ON s.id = up.parent
    )
    SELECT group_concat(text, '') FROM
      (SELECT text FROM up WHERE parent IS NOT NULL ORDER BY height DESC)
  ) AS text
  FROM run_candidates c JOIN runs r ON r.id = c.run;
CREATE VIEW answers AS
  SELECT c.run, r.problem, c.answer, count(*) AS candidates, sum(c.score) AS weight,
    max(c.score) AS best
  FROM run_candidates c JOIN runs r ON r.id = c.run
  WHERE c.answer IS NOT NULL
  GROUP BY c.run, c.answer ORDER BY c.run, weight DESC, candidates DESC;
CREATE VIEW step_scores AS
  SELECT s.id, s.parent, s.text, v.score, m.name AS verifier
  FROM scores v JOIN steps s ON s.id = v.step JOIN models m ON m.id = v.verifier;
"""


@MIGRATIONS()
def m001_tables(db: Database) -> None:
    """Everything, as it was at first."""
    _execute(db, TABLES + VIEWS)


SESSIONS = """
-- the sentence that ended a run whose status is failed
ALTER TABLE runs ADD COLUMN error TEXT;
-- JSON: [answer, weight, candidates] of each answer, the winner first
ALTER TABLE runs ADD COLUMN votes TEXT;
CREATE TABLE sessions (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  settings TEXT NOT NULL             -- JSON: budget, strategy, pair, …
);
CREATE TABLE session_runs (
  session INTEGER NOT NULL REFERENCES sessions,
  run INTEGER NOT NULL REFERENCES runs,
  place INTEGER NOT NULL,            -- the greatest: asked last
  PRIMARY KEY (session, run)
) WITHOUT ROWID;
CREATE TABLE typed (
  id INTEGER PRIMARY KEY,
  at TEXT NOT NULL,                  -- UTC
  line TEXT NOT NULL                 -- at the prompt of a session
);
DROP VIEW history;
CREATE VIEW history AS
  SELECT id, asked, status, problem, answer, share, correct, pair, strategy, budget, seed,
    json_extract(bill, '$.units') AS units,
    json_extract(bill, '$.generated_tokens') AS generated_tokens,
    json_extract(bill, '$.recalled_tokens') AS recalled_tokens,
    json_extract(bill, '$.seconds') AS seconds, error
  FROM runs ORDER BY asked DESC, id DESC;
"""


@MIGRATIONS()
def m002_sessions(db: Database) -> None:
    """Sessions, what was typed in them, how a run voted and what ended it."""
    _execute(db, SESSIONS)


CHAINS = """
-- the chain of revisions in which it stands
ALTER TABLE run_candidates ADD COLUMN chain INTEGER;
-- JSON: those of its steps, where it stands in a chain
ALTER TABLE run_candidates ADD COLUMN scores TEXT;
"""


@MIGRATIONS()
def m003_chains(db: Database) -> None:
    """Chains of revisions, whose steps are judged by a verifier of their own."""
    _execute(db, CHAINS)


def _execute(db: Database, statements: str) -> None:
    # Not `executescript`, which would commit what the transaction has done so far.
    for statement in statements.split(";\n"):
        if statement.strip():
            db.execute(statement)
