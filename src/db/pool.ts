import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { events, requestSpans } from '../events.ts'
import { type Connection, type ConnectionOptions, connect, type Parameter, type Row, run } from './connection.ts'
import type { Run } from './statement.ts'
import { DatabaseUnavailable, isConstraintViolation, NO_ANSWER, TOO_LATE, unavailable } from './unavailable.ts'

/** What a statement is for. It decides which connections it may take. */
export type Use = 'read' | 'write' | 'stream'

/** Who else than the primary may answer a read: a replica while the primary does not, or rather a replica, which may be late. */
export type Source = 'primary-first' | 'replica-first'

export type PoolOptions = ConnectionOptions & {
  /** Connections for reads and writes together; `RESERVED_FOR_READS` of them are never given to writes. */
  connections: number
  /** The deadline of a statement, in ms. PostgreSQL's own time-outs are shares of it. */
  deadlineMs: number
  /** The silence, in ms, after which reads that a replica may answer are given up. They never are if it is left out. */
  silenceMs?: number
  /** Called when the database, writes alone or a replica begin to fail, when the reason changes, and when they succeed again. */
  onChange?(of: 'database' | 'database writes' | 'replica', failure?: DatabaseUnavailable): void
}

export type Pool = ReturnType<typeof createPool>

/** Whether a database answers, its connections by what they do, and the statements that wait for one. */
export type PoolState = Record<'used' | 'idle' | 'max' | 'waiting', number> & {
  up: boolean
  /** The same of its replicas; undefined while there are none. */
  replica?: PoolState | undefined
}

/** Runs a statement that `prepare` made, in a pool. */
export function runner(db: Pool, use: Use, until: number, source?: Source): Run {
  return (text, parameters) => db.query(use, text, parameters, until, source)
}

/** Of the connections for reads and writes, as many as writes never get: locked rows must not stop reads. */
const RESERVED_FOR_READS = 2
export const MIN_CONNECTIONS = RESERVED_FOR_READS + 1
/** Connections for streams, beside the others. */
const STREAM_CONNECTIONS = 4
const USES = ['read', 'write', 'stream'] as const

const TICK_MS = 100
const IDLE_TIMEOUT_MS = 10_000
const RECONNECT_INTERVAL_MS = 250
const RENEW_INTERVAL_MS = 1000
const TRACE_INTERVAL_MS = 1000
/** A read is sent so often if its connection is lost each time: when all are cut, the next may be about to end as well. */
const READ_ATTEMPTS = 3
/** How long a connection that carries nothing may take to close. */
const CLOSE_TIMEOUT_MS = 500
/** Less time than this is not enough for an answer: the statement is not sent. */
const SEND_MARGIN_MS = 50
/** So long nothing is prepared after a migration made a statement stale: a pooler's connections keep those that they have. */
const UNPREPARED_MS = 5000
/** Of the deadline, the silence after which a new connection tells whether the database answers at all. */
const SUSPICION_SHARE = 0.25

type Work = {
  use: Use
  text: string
  parameters: readonly Parameter[]
  until: number
  source: Source | undefined
  /** When it was asked for. */
  since: number
  spans: ReturnType<typeof requestSpans.getStore>
  resolve(rows: Row[]): void
  reject(error: unknown): void
}

/** A connection and what it does. `checked` is its last answer to the check. */
type Link = Connection & {
  /** Past its deadline its caller was told that there is no answer, but PostgreSQL may still work for it. */
  work: Work | undefined
  /** When its statement was sent, or when it became idle. */
  since: number
}

/**
 * Connections to one PostgreSQL, each for one statement at a time. They are opened as they are needed, and closed when
 * they are idle, down to one.
 */
export function createPool(options: PoolOptions) {
  const { connections, deadlineMs, silenceMs = Number.POSITIVE_INFINITY, check, onChange } = options
  const maxWrites = connections - RESERVED_FOR_READS
  const links = new Set<Link>()
  const waiting: Record<Use, Set<Work>> = { read: new Set(), write: new Set(), stream: new Set() }
  const opened = Promise.withResolvers<void>()
  let opening = 0
  let renewedAt = Number.NEGATIVE_INFINITY
  let staleAt = Number.NEGATIVE_INFINITY
  /** Why nothing can be asked now, and why nothing can be written. */
  let outage: DatabaseUnavailable | undefined
  let writeFailure: DatabaseUnavailable | undefined
  /** When any connection was answered, when a write succeeded, and when there was silence. */
  let heardAt = performance.now()
  let writtenAt = Number.NEGATIVE_INFINITY
  let silentAt = Number.NEGATIVE_INFINITY
  /** When PostgreSQL was asked what became of late writes. */
  let tracedAt = Number.NEGATIVE_INFINITY
  let closed = false

  // After a pause of this process the answers may lie in the sockets: they are read before anything is judged.
  const ticker = setInterval(() => setImmediate(tick), TICK_MS).unref()

  // Connections

  async function open() {
    const start = performance.now()
    opening++
    try {
      // What ended the last connection may have ended this attempt: one quick failure does not count.
      const connection = await connect(options).catch((error: unknown) => {
        if (closed || performance.now() - start > RECONNECT_INTERVAL_MS) throw error
        return connect(options)
      })
      if (closed) return connection.destroy()
      const link: Link = { ...connection, work: undefined, since: performance.now() }
      links.add(link)
      void link.closed.then(() => drop(link))
      hear()
      opened.resolve()
    } catch (error) {
      if (error instanceof DatabaseUnavailable && !closed && nobodyAnswers()) fail(error)
      await sleep(RECONNECT_INTERVAL_MS, undefined, { ref: false })
    } finally {
      opening--
      dispatch()
    }
  }

  /** Those that are free; the one that was used last comes last, and is used next. */
  const idle = () => [...links].filter(({ work }) => !work).sort((a, b) => a.since - b.since)

  /** Whether one of these waits for an answer while no connection has had any for so long. */
  const isSilent = (asked: { since: number }[], ms: number) =>
    asked.some(({ since }) => Math.max(since, heardAt) < performance.now() - ms)
  const working = () => [...links].filter(({ work }) => work)
  const allWaiting = () => USES.flatMap((use) => [...waiting[use]])

  /** Whether there is no connection, or one waits for an answer while none has had any for long. */
  const nobodyAnswers = () => links.size === 0 || isSilent(working(), deadlineMs * SUSPICION_SHARE)

  /** Why what a replica may answer is not asked here. Silence ends with the next answer. */
  const failure = () => outage ?? (heardAt < silentAt ? SILENT : undefined)

  /** Notes an answer, which may be an error. */
  function hear() {
    heardAt = performance.now()
    if (outage) onChange?.('database')
    outage = undefined
  }

  /** Notes the outcome of a write that began at `start`. Writes that fail alone are told of once, and once when they succeed. */
  function noteWrite(start: number, error?: DatabaseUnavailable) {
    if (!error) writtenAt = performance.now()
    else if (outage || error.isMomentary || writtenAt > start) return
    if (Boolean(writeFailure) !== Boolean(error)) onChange?.('database writes', error)
    writeFailure = error
  }

  /** Drops all of them before any of those who wait could get one. */
  function drop(...gone: Link[]) {
    for (const { work, destroy } of gone.filter((link) => links.delete(link))) {
      // postgres.js does not reject a statement that it was given between a reset and the close.
      work?.reject(CLOSED)
      destroy()
    }
    dispatch()
  }

  /** Leaves every connection for a new one: the idle ones now, the others when they are free. */
  function renew() {
    renewedAt = performance.now()
    drop(...idle())
  }

  const isRetired = ({ since }: Link) => since <= renewedAt

  /** Nobody answers: nobody waits. */
  function fail(reason: DatabaseUnavailable) {
    if (!outage) renew()
    if (outage?.message !== reason.message) onChange?.('database', reason)
    outage = reason
    rejectHopeless()
  }

  /** Why there is no use in waiting for a connection. */
  function refusal({ use, until, source }: Pick<Work, 'use' | 'until' | 'source'>) {
    if (closed) return STOPPING
    const reason = source ? failure() : outage
    if (reason) return reason
    if (use === 'write' && stuckWrites().length >= maxWrites) return STUCK
    return until - performance.now() < SEND_MARGIN_MS ? TOO_LATE : undefined
  }

  function rejectHopeless() {
    for (const work of allWaiting()) {
      const reason = refusal(work)
      if (reason && waiting[work.use].delete(work)) work.reject(reason)
    }
  }

  // Statements

  const running = (use: Use) => [...links].filter(({ work }) => work?.use === use).length
  const isLate = ({ work }: Link) => work !== undefined && performance.now() > work.until
  const stuckWrites = () => [...links].filter((link) => link.work?.use === 'write' && isLate(link))

  /** How many more statements of this use may run. */
  function allowance(use: Use) {
    if (use === 'stream') return STREAM_CONNECTIONS - running('stream')
    const writes = running('write')
    const free = connections - running('read') - writes
    return use === 'write' ? Math.min(free, maxWrites - writes) : free
  }

  /**
   * Whether a connection has to answer something else first: its answer to the check no longer holds, or it was idle for so
   * long that its other end may be gone, as after a pause of this process. The latter only before a write, which is not sent
   * again.
   */
  const mustAnswerFirst = ({ since, checked }: Link, use: Use) =>
    check?.fault(checked.row, checked.askedAt) !== undefined ||
    (use === 'write' && performance.now() - since > IDLE_TIMEOUT_MS)

  /** Asks it before it gets `next`, and drops it if its answer does not do. */
  function askFirst(link: Link, next: Work) {
    const askedAt = performance.now()
    function resolve([row = []]: Row[]) {
      link.checked = { ...link.checked, row, askedAt }
      if (check?.fault(row, askedAt)) drop(link)
    }
    void send(link, { ...next, use: 'read', text: check?.text ?? 'select 1', parameters: [], resolve, reject() {} })
  }

  /**
   * Gives idle connections to what waits: reads first, then writes, then streams. Opens more where there are too few. If
   * none answers, it opens one to learn whether the database does.
   */
  function dispatch() {
    if (closed) return
    let wanted = 0
    for (const use of USES) {
      for (const work of waiting[use]) {
        const link = allowance(use) > 0 ? idle().pop() : undefined
        if (!link) {
          wanted += Math.min(waiting[use].size, allowance(use))
          break
        }
        if (mustAnswerFirst(link, use)) {
          askFirst(link, work)
          continue
        }
        waiting[use].delete(work)
        void send(link, work)
      }
    }
    const room = connections + STREAM_CONNECTIONS - links.size
    const missing = Math.max(Math.min(wanted, room), nobodyAnswers() ? 1 : 0) - opening
    for (let i = 0; i < missing; i++) void open()
  }

  async function send(link: Link, work: Work) {
    Object.assign(link, { work, since: performance.now() })
    const end = (errorType?: string) =>
      events.emit('statement', work.text, performance.now() - link.since, work.spans ?? [], errorType)
    try {
      const rows = await run(link.sql, work.text, work.parameters, link.since - staleAt > UNPREPARED_MS)
      end()
      hear()
      work.resolve(rows)
      free(link)
    } catch (error) {
      end(error instanceof postgres.PostgresError ? error.code : 'lost')
      const reason = unavailable(error)
      if (reason?.isStale) staleAt = performance.now()
      if (reason?.reached !== 'lost') hear()
      // Idle connections may be lost as well: the next attempt gets one that is new or has just answered.
      else drop(...idle())
      work.reject(reason ?? error)
      // After any other failure postgres.js may have counted rows that the next answer would begin with.
      if (isConstraintViolation(error)) free(link)
      else drop(link)
    }
  }

  function free(link: Link) {
    if (isRetired(link)) return drop(link)
    Object.assign(link, { work: undefined, since: performance.now() })
    dispatch()
  }

  /** Drops late writes that PostgreSQL is not busy with: they, or their answers, were lost on the way. */
  async function traceStuckWrites(askedAt: number) {
    tracedAt = askedAt
    const rows = await query('read', ACTIVE, [], askedAt + deadlineMs).catch(() => [])
    const active = new Set(rows.map(([pid]) => pid))
    // One that was not late then may have been on its way to PostgreSQL.
    const isLost = ({ work, checked: { pid } }: Link) => pid && !active.has(pid) && work && work.until < askedAt
    // None at all, not even the one that answers: PostgreSQL keeps no account of them.
    if (active.size > 0) drop(...stuckWrites().filter(isLost))
  }

  function tick() {
    const now = performance.now()
    if (isSilent([...allWaiting(), ...working()], silenceMs)) silentAt = now
    if (failure() === SILENT) for (const { work } of links) if (work?.source) work.reject(SILENT)
    rejectHopeless()
    for (const link of [...links].filter(isLate)) {
      link.work?.reject(NO_ANSWER)
      // PostgreSQL has long ended a statement that changes nothing. A commit may still wait, for a disk or a standby.
      if (isRetired(link) || (link.work?.use !== 'write' && now - link.since > deadlineMs)) drop(link)
    }
    if (stuckWrites().length > 0 && now - tracedAt > TRACE_INTERVAL_MS) void traceStuckWrites(now)
    // The idle connections may be as silent as those that wait.
    if (nobodyAnswers()) drop(...idle())
    const [oldest] = idle()
    if (oldest && links.size > 1 && now - oldest.since > IDLE_TIMEOUT_MS) drop(oldest)
  }

  /**
   * Runs a statement until `latest`, a time of performance.now(), but for `deadlineMs` at most. A read is sent again if its
   * connection is lost, up to `READ_ATTEMPTS` in all, and while others hold a lock. Any statement is sent again that a
   * migration made invalid, for it was not carried out. A read that others may answer is given up when this server falls silent.
   * @throws DatabaseUnavailable when there is no answer: a write that was 'lost' may have been carried out
   * @throws postgres.PostgresError when the database refuses the statement; TypeError for a wrong parameter
   */
  async function query(use: Use, text: string, parameters: readonly Parameter[], latest: number, source?: Source) {
    if (!parameters.every(isParameter)) throw new TypeError('Only text, numbers, booleans and null can be sent.')
    const start = performance.now()
    const until = Math.min(latest, start + deadlineMs)
    for (let attempt = 1; ; attempt++) {
      try {
        const reason = refusal({ use, until, source })
        if (reason) throw reason
        const [since, spans] = [performance.now(), requestSpans.getStore()]
        const rows = await new Promise<Row[]>((resolve, reject) => {
          waiting[use].add({ use, text, parameters, until, source, since, spans, resolve, reject })
          dispatch()
        })
        if (use === 'write') noteWrite(start)
        return rows
      } catch (error) {
        if (!(error instanceof DatabaseUnavailable)) throw error
        // After a failover the old primary still answers, but only reads.
        if (error.code === '25006' && performance.now() - renewedAt > RENEW_INTERVAL_MS) renew()
        const isPassing = error.isMomentary || (error.reached === 'lost' && attempt < READ_ATTEMPTS)
        if ((error.isStale || (use !== 'write' && isPassing)) && performance.now() < until - SEND_MARGIN_MS) continue
        if (use === 'write') noteWrite(start, error)
        throw error
      }
    }
  }

  void open()

  return {
    query,
    /** The deadline of a statement, in ms. */
    deadlineMs,
    /** Whether reads or writes are under way now. */
    busy: () => running('read') + running('write') > 0,
    state(): PoolState {
      const [free, up] = [idle().length, links.size > 0 && !outage]
      return { up, used: links.size - free, idle: free, max: connections, waiting: allWaiting().length }
    },
    /** Why it cannot be asked now for what a replica may answer. */
    failure,
    /** Resolves when the database has answered for the first time, however long that takes. */
    opened: opened.promise,
    /** Waits for running statements for at most `timeoutMs`, then closes every connection. */
    async close(timeoutMs: number) {
      closed = true
      clearInterval(ticker)
      rejectHopeless()
      // Where nobody waits for an answer, there is no use in waiting for a database that may be silent.
      const timeoutOf = (link: Link) => (link.work && !isLate(link) ? timeoutMs : Math.min(CLOSE_TIMEOUT_MS, timeoutMs))
      await Promise.all([...links].map((link) => link.sql.end({ timeout: timeoutOf(link) / 1000 })))
      // Whoever waited for an answer has heard of it by now.
      await sleep(0)
    },
  }
}

/** The processes that work for this role. One whose commit waits for a standby is among them. */
const ACTIVE = `select pid from pg_stat_activity where usename = current_user and state = 'active'`

/** postgres.js would make text of a Date, and something else of an array. */
const isParameter = (value: unknown) => value === null || ['string', 'number', 'boolean'].includes(typeof value)

const STOPPING = new DatabaseUnavailable('this process is stopping', 'unsent')
const CLOSED = new DatabaseUnavailable('it closed the connection', 'lost')
const SILENT = new DatabaseUnavailable('it has not answered for a while', 'lost')
const STUCK = new DatabaseUnavailable('earlier writes have no answer yet', 'unsent')
