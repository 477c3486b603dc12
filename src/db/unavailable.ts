import postgres from 'postgres'

/** The database cannot be asked now. The message says why: for the log, never for a client. */
export class DatabaseUnavailable extends Error {
  override readonly name = 'DatabaseUnavailable'
  /** How far the statement came. Only what was 'lost' may have been carried out. */
  readonly reached: 'unsent' | 'refused' | 'lost'
  /** SQLSTATE, where the database gave one. */
  readonly code: string | undefined
  /** Whether a migration made the prepared statement invalid: it was not carried out. */
  readonly isStale: boolean
  /** Whether what others do is the reason: a lock that they hold, or a migration. Nothing was done, and soon it may succeed. */
  readonly isMomentary: boolean

  constructor(message: string, reached: DatabaseUnavailable['reached'], cause?: unknown) {
    super(message, { cause })
    this.reached = reached
    this.code = cause instanceof postgres.PostgresError ? cause.code : undefined
    this.isStale = cause instanceof postgres.PostgresError && isStale(cause)
    this.isMomentary = this.isStale || OF_A_LOCK.test(this.code ?? '')
  }
}

/**
 * SQLSTATEs of transient conditions: connection (08), transaction rollback (40), resources (53), object not in
 * the needed state (55), operator intervention (57), system error (58), and a read-only transaction, as on a
 * primary that was demoted (25006). PostgreSQL, appendix A.
 */
const TRANSIENT = /^(08|40|53|55|57|58|25006)/
/** Of these, the ones that end the session. */
const ENDING = /^(08|57P0)/
/** Of these, the ones that concern what others have locked, and not the database: a deadlock, a lock that took too long. */
const OF_A_LOCK = /^(40|55P03)/
/** PostgreSQL finds here that a migration made a prepared statement invalid, before it carries it out. */
const STALE_ROUTINES = ['RevalidateCachedQuery', 'FetchPreparedStatement']
const isStale = ({ routine }: postgres.PostgresError) => STALE_ROUTINES.includes(routine)
/** Codes of postgres.js and of Node's sockets, not of mistakes in a call (ERR_INVALID_ARG_TYPE). */
const CONNECTION_LOST = /^(CONNECTION_|ERR_STREAM_|ERR_SOCKET_|ERR_SSL_|E(?!RR_)[A-Z_]+$)/

/** The error as DatabaseUnavailable if it tells of the database's state; undefined if it tells of the statement. */
export function unavailable(error: unknown): DatabaseUnavailable | undefined {
  if (error instanceof DatabaseUnavailable) return error
  if (error instanceof postgres.PostgresError) {
    if (!TRANSIENT.test(error.code) && !isStale(error)) return undefined
    return new DatabaseUnavailable(error.message, ENDING.test(error.code) ? 'lost' : 'refused', error)
  }
  const isLost = error instanceof Error && 'code' in error && CONNECTION_LOST.test(String(error.code))
  // An AggregateError, of several addresses tried, has no message.
  return isLost ? new DatabaseUnavailable(error.message || String(error.code), 'lost', error) : undefined
}

/** Whether a constraint refused a statement (SQLSTATE class 23). */
export const isConstraintViolation = (error: unknown): error is postgres.PostgresError =>
  error instanceof postgres.PostgresError && error.code.startsWith('23')
/** Whether a statement was refused because another row has a value that is unique (SQLSTATE 23505). */
export const isUniqueViolation = (error: unknown) => isConstraintViolation(error) && error.code === '23505'
/** Whether a statement was refused because of a reference between rows (SQLSTATE 23503). */
export const isForeignKeyViolation = (error: unknown): error is postgres.PostgresError =>
  isConstraintViolation(error) && error.code === '23503'

/** Whether a write that failed so may have been carried out: nobody refused it. */
export const mayBeDone = (error: unknown): boolean =>
  error instanceof DatabaseUnavailable ? error.reached === 'lost' : !(error instanceof postgres.PostgresError)

/** For a statement whose deadline came before its turn. */
export const TOO_LATE = new DatabaseUnavailable('its turn came too late', 'unsent')
/** For a statement whose deadline came before its answer. */
export const NO_ANSWER = new DatabaseUnavailable('it did not answer in time', 'lost')
