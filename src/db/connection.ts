import { type Socket, connect as tcpConnect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { DatabaseUnavailable, unavailable } from './unavailable.ts'

/** Where the database is and who logs in. */
export type Address = {
  host: string
  port: number
  database: string
  user: string
  password: string
  ssl: 'disable' | 'prefer' | 'require' | 'verify-full'
}

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
  /** To be called at regular intervals: leaves a connection on which a statement has waited past its deadline, and says so. */
  watch(now: number): boolean
  /** Leaves a connection on which nobody waits, for it may be silent. */
  doubt(): void
  /** Ends what is under way within `timeoutMs`. */
  close(timeoutMs: number): Promise<void>
}

/** Short, so that a database that was out of reach is found again soon after it returns. */
const CONNECT_TIMEOUT_MS = 1500
const RETRY_MS = 250
/** Of the deadline, the longest run of a statement: PostgreSQL's own refusal comes before we count it as silent. */
const STATEMENT_TIMEOUT_SHARE = 0.9
/**
 * Of the deadline, the longest wait for a lock: who waits holds a connection that others need, and what failed with
 * it in one statement must have time left to be tried by itself, beside others that wait again.
 */
const LOCK_TIMEOUT_SHARE = 0.2
const asText = (value: unknown) => value

/** A connection in use: a postgres.js client of one connection that is never let reconnect, for here we know when and why. */
type Session = { sql: postgres.Sql; end(timeoutMs: number): Promise<void> }

/** postgres.js sends what it has at once when it is 1 KiB; we wait for the rest of this turn of the event loop. */
const BURST_BYTES = 1024

/** Statements that come in one turn leave in one system call, and wake the backend once. */
function gatherWrites(socket: Socket) {
  const write = socket.write.bind(socket) as (chunk: Uint8Array, ...rest: unknown[]) => boolean
  const uncork = () => socket.uncork()
  socket.write = (chunk: Uint8Array, ...rest: unknown[]) => {
    if (socket.writableCorked === 0 && chunk.length >= BURST_BYTES) {
      socket.cork()
      setImmediate(uncork)
    }
    return write(chunk, ...rest)
  }
}

function openSession({ address, applicationName, deadlineMs }: ConnectionOptions, onclose: () => void): Session {
  let socket: (Socket & { host?: string }) | undefined
  const shareMs = (share: number) => Math.max(1, Math.floor(deadlineMs * share))
  const end = async (timeoutMs: number) => {
    await sql.end({ timeout: timeoutMs / 1000 })
    socket?.destroy()
  }
  const sql = postgres({
    host: address.host,
    port: address.port,
    database: address.database,
    user: address.user,
    password: address.password,
    ssl: address.ssl === 'disable' ? false : (address.ssl as 'require'),
    max: 1,
    max_pipeline: Number.MAX_SAFE_INTEGER,
    max_lifetime: null,
    connect_timeout: 0,
    fetch_types: false,
    connection: {
      application_name: applicationName,
      TimeZone: 'UTC',
      DateStyle: 'ISO',
      statement_timeout: shareMs(STATEMENT_TIMEOUT_SHARE),
      lock_timeout: shareMs(LOCK_TIMEOUT_SHARE),
    },
    // timestamptz stays text: a Date on the way costs more than the rest of the row.
    types: { time: { to: 1184, from: [1082, 1083, 1114, 1184], serialize: asText, parse: asText } },
    onnotice: () => {},
    onclose,
    // Our own socket, so that one that went silent can be destroyed.
    socket: () => {
      if (socket !== undefined) {
        // The server hung up while the session was opening: postgres.js would try again for ever.
        onclose()
        return socket
      }
      socket = address.host.startsWith('/')
        ? tcpConnect({ path: `${address.host}/.s.PGSQL.${address.port}` })
        : tcpConnect({ host: address.host, port: address.port, noDelay: true })
      socket.host = address.host
      gatherWrites(socket)
      return socket
    },
  } as postgres.Options<Record<string, postgres.PostgresType>>)
  return { sql, end }
}

export function createConnection(options: ConnectionOptions): Connection {
  const { deadlineMs, onChange } = options
  const pending = new Set<{ since: number }>()
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
    const timer = setTimeout(() => reject(new DatabaseUnavailable('it does not answer', 'unsent')), CONNECT_TIMEOUT_MS)
    const opened = openSession(options, () => {
      reject(new DatabaseUnavailable('it closed the connection', 'unsent'))
      if (session === opened) {
        session = undefined
        void opened.end(0)
        keepOpen()
      }
    })
    try {
      await Promise.race([opened.sql.unsafe('select 1'), lost])
      if (closing.signal.aborted) throw new DatabaseUnavailable('this process is stopping', 'unsent')
      session = opened
    } catch (error) {
      void opened.end(0)
      const { message } = unavailable(error) ?? (error as Error)
      throw new DatabaseUnavailable(message, 'unsent', error)
    } finally {
      clearTimeout(timer)
    }
  }

  /** What ended the last session may have ended this attempt, too: once is not yet a failure, unless it took long. */
  async function attemptTwice(): Promise<void> {
    const start = performance.now()
    try {
      await attempt()
    } catch (error) {
      if (closing.signal.aborted || performance.now() - start > RETRY_MS) throw error
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
        void sleep(RETRY_MS, undefined, { signal: closing.signal }).then(
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

  function leaveSilent() {
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

  /** Opens it for a statement, in the time that is left for that. */
  async function openUntil(deadline: number) {
    const { promise: late, reject } = Promise.withResolvers<never>()
    const timer = setTimeout(
      () => reject(new DatabaseUnavailable('it does not answer', 'unsent')),
      deadline - performance.now(),
    )
    await Promise.race([keepOpen(), late]).finally(() => clearTimeout(timer))
  }

  async function query(text: string, parameters: readonly unknown[], since = performance.now()): Promise<Row[]> {
    while (session === undefined) {
      if (failure) throw failure
      await openUntil(since + deadlineMs)
    }
    const used = session
    const entry = { since }
    pending.add(entry)
    try {
      return await used.sql.unsafe(text, parameters as never[], { prepare: true }).values()
    } catch (error) {
      const reason = unavailable(error)
      // Its end is told a moment later: who tries again must not meet it once more.
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
        await keepOpen().catch(() => sleep(RETRY_MS))
      }
    },
    renew,
    watch(now) {
      const oldest = pending.values().next().value
      if (oldest === undefined || now - oldest.since <= deadlineMs) return false
      leaveSilent()
      return true
    },
    doubt() {
      if (session !== undefined && pending.size === 0) leaveSilent()
    },
    async close(timeoutMs) {
      closing.abort()
      const last = session
      session = undefined
      await last?.end(timeoutMs)
    },
  }
}
