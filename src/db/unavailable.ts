import postgres from 'postgres'

/**
 * How far a statement came that got no answer: 'unsent' and 'refused' changed nothing; what was 'lost' on its way
 * may have been carried out.
 */
export type Reached = 'unsent' | 'refused' | 'lost'

/** The database cannot be asked now; the message says why, for the log and never for a client. */
export class DatabaseUnavailable extends Error {
  override readonly name = 'DatabaseUnavailable'
  readonly reached: Reached
  /** SQLSTATE, where the database gave one. */
  readonly code: string | undefined

  constructor(message: string, reached: Reached, cause?: unknown) {
    super(message, { cause })
    this.reached = reached
    this.code = cause instanceof postgres.PostgresError ? cause.code : undefined
  }

  /** Whether it tells of a row that others hold (SQLSTATE 40 and 55P03, or a turn that came too late), not of the database. */
  get isOfRow(): boolean {
    return this.code === undefined ? this.reached === 'refused' : /^(40|55P03)/.test(this.code)
  }
}

/**
 * SQLSTATEs of transient conditions: connection (08), transaction rollback (40), resources (53), object not in
 * the needed state (55), operator intervention (57), system error (58), and a read-only transaction, as on a
 * primary that was demoted (25006). PostgreSQL, appendix A.
 */
const TRANSIENT = /^(08|40|53|55|57|58|25006)/
/** Of these, those that end the session, and with it all that is on the connection. */
const ENDING = /^(08|57P0)/

/** The error as DatabaseUnavailable if it tells of the database's state; undefined if it tells of the statement. */
export function unavailable(error: unknown): DatabaseUnavailable | undefined {
  if (error instanceof DatabaseUnavailable) return error
  if (error instanceof postgres.PostgresError) {
    if (!TRANSIENT.test(error.code)) return undefined
    return new DatabaseUnavailable(error.message, ENDING.test(error.code) ? 'lost' : 'refused', error)
  }
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (!/^(CONNECTION_|CONNECT_|E[A-Z_]+$)/.test(code)) return undefined
  // An AggregateError, of several addresses tried, has no message.
  return new DatabaseUnavailable((error instanceof Error && error.message) || code, 'lost', error)
}
