import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import type { Address } from './address.ts'
import { openSession, type Session } from './session.ts'
import type { Row } from './statement.ts'
import { DatabaseUnavailable, unavailable } from './unavailable.ts'

export type ConnectionOptions = {
  address: Address
  applicationName: string
  /** Longest wait for an answer; past it the connection counts as silent and is renewed. */
  deadlineMs: number
  /** Longest wait for a lock; as long as a statement may run if left out. */
  lockTimeoutMs?: number
  /** Whether one that is lost is opened again at once and as often as it takes, or when it is wanted. */
  keptOpen: boolean
  /** Called when the connection is lost, and when it is back. */
  onChange?: (failure: DatabaseUnavailable | undefined) => void
}

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
  /**
   * To be called at regular intervals: gives up the statements that are past their deadline, and renews the connection
   * when it was silent for as long. Returns whether it was.
   */
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
/** Of the deadline, what must be left when a statement is sent. */
const SEND_SHARE = 0.2
/** Statements that wait on a connection whose oldest has waited for half of its deadline: more would wait in vain. */
const BACKLOG_MAX = 100

/** How often a statement is sent that migrations make invalid. */
const STALE_ATTEMPTS = 3
/** Where PostgreSQL finds that a migration made a prepared statement invalid, before it carries it out. */
const STALE_ROUTINES = ['RevalidateCachedQuery', 'FetchPreparedStatement', 'transformAssignedExpr']
const isStale = (error: unknown) => error instanceof postgres.PostgresError && STALE_ROUTINES.includes(error.routine)

/** `work`, unless it takes longer than `ms`. @throws DatabaseUnavailable */
function within<T>(ms: number, work: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(reject, Math.max(0, ms), new DatabaseUnavailable('it does not answer', 'unsent'))
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}

export function createConnection(options: ConnectionOptions): Connection {
  const { address, applicationName, deadlineMs, keptOpen, onChange } = options
  const statementTimeoutMs = Math.floor(deadlineMs * STATEMENT_TIMEOUT_SHARE)
  const lockTimeoutMs = Math.min(options.lockTimeoutMs ?? statementTimeoutMs, statementTimeoutMs)
  /** In the order in which they were sent, those that were given up among them. */
  const pending = new Set<{ since: number; sent: number; reject(error: unknown): void }>()
  let heard = performance.now()
  let congested = false
  const closing = new AbortController()
  let session: Session | undefined
  let opening: Promise<void> | undefined
  let failure: DatabaseUnavailable | undefined

  function changed(to: DatabaseUnavailable | undefined) {
    const before = failure
    failure = to
    if (before?.message !== to?.message) onChange?.(to)
  }

  async function connect(): Promise<void> {
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
      const answered = new Promise((resolve, reject) => opened.query('select 1', [], resolve, reject))
      await within(CONNECT_TIMEOUT_MS, Promise.race([answered, lost]))
      if (closing.signal.aborted) throw new DatabaseUnavailable('this process is stopping', 'unsent')
      session = opened
    } catch (error) {
      void opened.end(0)
      const { message } = unavailable(error) ?? (error as Error)
      throw new DatabaseUnavailable(message, 'unsent', error)
    }
  }

  /** What ended the last session may have ended this attempt, too: one quick failure is not yet counted. */
  async function connectTwice(): Promise<void> {
    const start = performance.now()
    try {
      await connect()
    } catch (error) {
      if (closing.signal.aborted || performance.now() - start > RECONNECT_INTERVAL_MS) throw error
      await connect()
    }
  }

  /** Tries until it is open, and tells who waits how the first try went: from then on the failure is known at once. */
  function keepOpen(): Promise<void> {
    opening ??= connectTwice().then(
      () => {
        opening = undefined
        changed(undefined)
      },
      (error: DatabaseUnavailable) => {
        changed(error)
        void sleep(RECONNECT_INTERVAL_MS, undefined, { signal: closing.signal }).then(
          () => {
            opening = undefined
            if (keptOpen) keepOpen()
            else changed(undefined)
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

  async function query(
    text: string,
    parameters: readonly unknown[],
    since = performance.now(),
    attempt = 1,
  ): Promise<Row[]> {
    const deadline = since + deadlineMs
    while (session === undefined) {
      if (failure) throw failure
      await within(deadline - performance.now(), keepOpen())
    }
    const sent = performance.now()
    if (deadline - sent < deadlineMs * SEND_SHARE) {
      throw new DatabaseUnavailable('its turn came too late', 'refused')
    }
    if (congested) throw new DatabaseUnavailable('too many statements wait', 'refused')
    const used = session
    try {
      return await new Promise<Row[]>((resolve, reject) => {
        const entry = { since, sent, reject }
        pending.add(entry)
        const settle = () => {
          heard = performance.now()
          pending.delete(entry)
        }
        used.query(
          text,
          parameters,
          (rows) => {
            settle()
            resolve(rows)
          },
          (error) => {
            settle()
            reject(error)
          },
        )
      })
    } catch (error) {
      // Given up: it may still be answered, and so may those behind it.
      if (error instanceof DatabaseUnavailable) throw error
      if (isStale(error)) {
        if (attempt < STALE_ATTEMPTS) return await query(text, parameters, since, attempt + 1)
        throw new DatabaseUnavailable('its tables are being changed', 'refused', error)
      }
      const reason = unavailable(error)
      // postgres.js reports the close a moment later: a retry must not use this connection again.
      if (reason?.reached === 'lost' && session === used) renew()
      throw reason ?? error
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
      for (const { since, reject } of pending) {
        if (now - since > deadlineMs) reject(new DatabaseUnavailable('it did not answer in time', 'lost'))
      }
      const [oldest] = pending
      congested = oldest !== undefined && now - oldest.sent > deadlineMs / 2 && pending.size > BACKLOG_MAX
      if (oldest === undefined || now - Math.max(oldest.sent, heard) <= deadlineMs) return false
      markSilent()
      return true
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
