import { setTimeout as sleep } from 'node:timers/promises'
import type { Address } from './address.ts'
import { openSession, type Session } from './session.ts'
import { DatabaseUnavailable, unavailable } from './unavailable.ts'

export type ConnectionOptions = {
  address: Address
  applicationName: string
  /** Longest wait for an answer; past it the connection counts as silent and is renewed. */
  deadlineMs: number
  /** Called when the connection is lost, and when it is back. */
  onChange?: (failure: DatabaseUnavailable | undefined) => void
}

/** A row's columns as PostgreSQL's text, but booleans and numbers of up to 4 bytes. */
export type Row = readonly (string | number | boolean | null)[]

/** One connection to PostgreSQL that pipelines what it is given, notices silence and comes back by itself. */
export type Connection = {
  /**
   * Runs one statement, prepared by name on its first use here. Its deadline counts from `since`.
   * @throws DatabaseUnavailable when no answer can be had; postgres.PostgresError when the database refuses it
   */
  query(text: string, parameters: readonly unknown[], since?: number): Promise<Row[]>
  /** Whether an answer is waited for. */
  busy(): boolean
  /** The reason for which nothing can be asked now. */
  failure(): DatabaseUnavailable | undefined
  /** Opens it, now and again whenever it is lost. Resolves when it is open, however long that takes. */
  open(): Promise<void>
  /** Leaves the present connection for a new one, as after a failover. */
  renew(): void
  /** To be called at regular intervals: ends statements past their deadline, and says whether the connection is silent. */
  expire(now: number): boolean
  /** Renews a connection on which nobody waits, for it may be silent. */
  renewIfIdle(): void
  /** Ends what is under way within `timeoutMs`. */
  close(timeoutMs: number): Promise<void>
}

/** Short, so that a database that was out of reach is found again soon after it returns. */
const CONNECT_TIMEOUT_MS = 1500
const RECONNECT_INTERVAL_MS = 250
/** Of the deadline, the longest run of a statement: PostgreSQL's own refusal comes before we count it as silent. */
const STATEMENT_TIMEOUT_SHARE = 0.9
/**
 * Of the deadline, the longest wait for a lock: a statement that waits occupies a connection, and the rows of a batch
 * that failed need time left to be tried one by one.
 */
const LOCK_TIMEOUT_SHARE = 0.2

/** `work`, unless it takes longer than `ms`. @throws DatabaseUnavailable */
function within<T>(ms: number, work: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(reject, Math.max(0, ms), new DatabaseUnavailable('it does not answer', 'unsent'))
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}

export function createConnection(options: ConnectionOptions): Connection {
  const { address, applicationName, deadlineMs, onChange } = options
  const shareMs = (share: number) => Math.max(1, Math.floor(deadlineMs * share))
  const statementTimeoutMs = shareMs(STATEMENT_TIMEOUT_SHARE)
  const lockTimeoutMs = shareMs(LOCK_TIMEOUT_SHARE)
  /** When the deadline of each statement on its way began, and when it was sent. */
  const pending = new Set<{ since: number; sent: number }>()
  const closing = new AbortController()
  let session: Session | undefined
  let opening: Promise<void> | undefined
  let failure: DatabaseUnavailable | undefined

  function changed(to: DatabaseUnavailable | undefined) {
    const before = failure
    failure = to
    if (before?.message !== to?.message) onChange?.(to)
  }

  async function attempt(): Promise<void> {
    const { promise: lost, reject } = Promise.withResolvers<never>()
    lost.catch(() => {})
    const onclose = () => {
      reject(new DatabaseUnavailable('it closed the connection', 'unsent'))
      if (session !== opened) return
      session = undefined
      void opened.end(0)
      keepOpen()
    }
    const opened = openSession({ address, applicationName, statementTimeoutMs, lockTimeoutMs, onclose })
    try {
      await within(CONNECT_TIMEOUT_MS, Promise.race([opened.sql.unsafe('select 1'), lost]))
      if (closing.signal.aborted) throw new DatabaseUnavailable('this process is stopping', 'unsent')
      session = opened
    } catch (error) {
      void opened.end(0)
      const { message } = unavailable(error) ?? (error as Error)
      throw new DatabaseUnavailable(message, 'unsent', error)
    }
  }

  /** What ended the last session may have ended this attempt, too: one quick failure is not yet counted. */
  async function attemptTwice(): Promise<void> {
    const start = performance.now()
    try {
      await attempt()
    } catch (error) {
      if (closing.signal.aborted || performance.now() - start > RECONNECT_INTERVAL_MS) throw error
      await attempt()
    }
  }

  /** Tries until it is open, and tells who waits how the first try went: from then on the failure is known at once. */
  function keepOpen(): Promise<void> {
    opening ??= attemptTwice().then(
      () => {
        opening = undefined
        changed(undefined)
      },
      (error: DatabaseUnavailable) => {
        changed(error)
        void sleep(RECONNECT_INTERVAL_MS, undefined, { signal: closing.signal }).then(
          () => {
            opening = undefined
            keepOpen()
          },
          () => {},
        )
        throw error
      },
    )
    opening.catch(() => {})
    return opening
  }

  function markSilent() {
    // Known at once, so that nobody queues behind a database that does not answer.
    changed(new DatabaseUnavailable('it does not answer', 'unsent'))
    renew()
  }

  function renew() {
    const dropped = session
    session = undefined
    void dropped?.end(0)
    void keepOpen()
  }

  async function query(text: string, parameters: readonly unknown[], since = performance.now()): Promise<Row[]> {
    const deadline = since + deadlineMs
    while (session === undefined) {
      if (failure) throw failure
      await within(deadline - performance.now(), keepOpen())
    }
    // Sent so late, its own time-out would come after its deadline, and pass for a silent database.
    const sent = performance.now()
    if (deadline - sent < lockTimeoutMs) throw new DatabaseUnavailable('its turn came too late', 'refused')
    const used = session
    const entry = { since, sent }
    pending.add(entry)
    try {
      return await used.sql.unsafe(text, parameters as never[], { prepare: true }).values()
    } catch (error) {
      const reason = unavailable(error)
      // postgres.js reports the close a moment later: a retry must not use this connection again.
      if (reason?.reached === 'lost' && session === used) renew()
      throw reason ?? error
    } finally {
      pending.delete(entry)
    }
  }

  return {
    query,
    busy: () => pending.size > 0,
    failure: () => failure,
    async open() {
      while (session === undefined && !closing.signal.aborted) {
        await keepOpen().catch(() => sleep(RECONNECT_INTERVAL_MS))
      }
    },
    renew,
    expire(now) {
      const oldest = pending.values().next().value
      if (oldest === undefined || now - oldest.since <= deadlineMs) return false
      // What was sent late is at its end sooner than a connection can be called silent.
      const silent = now - oldest.sent > deadlineMs / 2
      if (silent) markSilent()
      else renew()
      return silent
    },
    renewIfIdle() {
      if (session !== undefined && pending.size === 0) markSilent()
    },
    async close(timeoutMs) {
      closing.abort()
      const last = session
      session = undefined
      await last?.end(timeoutMs)
    },
  }
}
