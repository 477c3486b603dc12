// What the routes and the store of a resource say to each other.

/** Why a store did not do what it was asked. These are expected: values, not errors. */
export type Refusal =
  | { outcome: 'missing' | 'stale' | 'key-reused' }
  /** Another row has these fields. */
  | { outcome: 'conflict'; fields: readonly string[] }
  /** Rows of another table refer to this one. */
  | { outcome: 'referenced'; by: string }
  /** The row that this field names is not there. */
  | { outcome: 'reference-missing'; field: string }

/** What became of a change: the row as it left it, the row that was as asked for already, or why it was refused. */
export type Result<T> = T | { outcome: 'unchanged'; row: T } | Refusal

/** Versions that a change may start from; undefined for any. */
export type Versions = readonly number[] | undefined

/** Gets a row by its id before `until`; undefined if there is none. */
export type Get<T> = (id: number, until: number) => Promise<T | undefined>

/** What makes a retry of a POST safe: the client's key, and a hash of the values that it creates; nulls without a key. */
export type Idempotency = { key: string | null; hash: string | null }

/** What was found, as the answer to a change that changes nothing; a refusal if it is not there at one of `versions`. */
export function unchanged<T extends { version: number }>(found: T | undefined, versions?: Versions): Result<T> {
  if (!found) return { outcome: 'missing' }
  if (versions && !versions.includes(found.version)) return { outcome: 'stale' }
  return { outcome: 'unchanged', row: found }
}
