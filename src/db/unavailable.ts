import postgres from 'postgres'

/** The database cannot be asked now; the message says why, for the log and never for a client. */
export class DatabaseUnavailable extends Error {
  override readonly name = 'DatabaseUnavailable'
  /** SQLSTATE, where the database gave one. */
  readonly code: string | undefined
  /** Whether the connection went while the statement was on its way: it may have been carried out. */
  readonly lost: boolean

  constructor(message: string, cause?: unknown, lost = false) {
    super(message, { cause })
    this.code = cause instanceof postgres.PostgresError ? cause.code : undefined
    this.lost = lost
  }
}

/**
 * SQLSTATEs that pass by themselves: connection (08), transaction rollback (40), resources (53), object not in
 * the needed state (55), operator intervention (57), system error (58), and a read-only transaction, as on a
 * primary that was demoted (25006). PostgreSQL, appendix A.
 */
const PASSING = /^(08|40|53|55|57|58|25006)/

/** The error as DatabaseUnavailable if it tells of the database's state; undefined if it tells of the statement. */
export function unavailable(error: unknown): DatabaseUnavailable | undefined {
  if (error instanceof DatabaseUnavailable) return error
  if (error instanceof postgres.PostgresError) {
    if (!PASSING.test(error.code)) return undefined
    // 57P0x ends the session: what else was on the connection is lost with it.
    return new DatabaseUnavailable(error.message, error, error.code.startsWith('57P0') || error.code.startsWith('08'))
  }
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (/^(CONNECTION_|CONNECT_|E[A-Z]+$)/.test(code)) {
    // An AggregateError, of several addresses tried, has no message.
    return new DatabaseUnavailable((error instanceof Error && error.message) || code, error, true)
  }
  return undefined
}
