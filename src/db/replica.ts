import { setTimeout as sleep } from 'node:timers/promises'
import type { Config } from '../config.ts'
import type { Row } from './connection.ts'
import { createPool, type Pool, type PoolOptions } from './pool.ts'
import { DatabaseUnavailable, NO_ANSWER } from './unavailable.ts'

/** How often the primary is asked for its position in the write-ahead log. So its silence is noticed without requests, too. */
const POSITION_INTERVAL_MS = 250
const POSITION_TIMEOUT_MS = 1000
/** How long a replica is waited for before the primary is asked; and the primary, if it answers nothing at all. */
const PATIENCE_MS = 500
/** How long the primary then has all pages: not each of them shall wait for a replica that is slow. */
const REST_MS = 5000

/** Whether the server is a replica, and the position up to which it shows what was committed. */
const POSITION = `select pg_is_in_recovery(), pg_wal_lsn_diff(
  case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end, '0/0')::float8`

/**
 * The connections to PostgreSQL: a pool of the primary's, and another of its replicas' for what may be read from them. If
 * a replica fails, the primary answers: only `onChange` is told.
 *
 * No clocks are compared. A replica that has come to a position shows all that was committed before the primary was asked
 * for it. Each connection proves that for itself, because one name may lead to several replicas.
 */
export function createDatabase(config: Config & Pick<PoolOptions, 'applicationName' | 'onChange'>): Pool {
  const options: PoolOptions = { ...config, connections: config.DB_CONNECTIONS }
  if (!config.readAddress) return createPool(options)
  // After a failover the primary's name may lead to the old one for a while, which shows what it was sent, however late.
  const fallen = ([isReplica]: Row) => (isReplica ? 'it is a replica now' : undefined)
  const check = { text: 'select pg_is_in_recovery()', fault: fallen }
  const primary = createPool({ ...options, silenceMs: PATIENCE_MS, check })
  const replicaOptions = { ...options, address: config.readAddress, check: { text: POSITION, fault } }
  const patienceMs = Math.min(PATIENCE_MS, options.deadlineMs / 2)
  /** The primary's positions, the newest first, each with the time just before it was asked for. */
  let positions: { at: number; position: number }[] = []
  let replica: Pool | undefined
  /** Until when the primary has all pages; 0 while the replica answers. */
  let restsUntil = 0
  let closed = false

  const isNew = (at: number, now = performance.now()) => now - at < config.DB_READ_MAX_LAG_MS

  /**
   * Why a server that answered so may not be read from. While the primary is away, a replica stays as current as it was when the
   * primary last told its position: an answer in between does not make it late. One that is promoted may then be the new primary.
   */
  function fault([isReplica, position]: Row, askedAt: number) {
    const judgedAt = primary.failure() ? positions[0]?.at : undefined
    if (!isReplica && judgedAt === undefined) return 'it is not a replica'
    const reached = positions.find((known) => known.position <= Number(position))
    return reached && isNew(reached.at, judgedAt) && isNew(askedAt) ? undefined : 'it is too far behind'
  }

  async function watchPosition() {
    const at = performance.now()
    try {
      const [[isReplica, position] = []] = await primary.query('stream', POSITION, [], at + POSITION_TIMEOUT_MS)
      // After a failover it may be less than before: the newest counts.
      if (!isReplica) positions = [{ at, position: Number(position) }, ...positions.filter((known) => isNew(known.at))]
      // Without a position no replica could be trusted.
      if (positions.length > 0 && !closed)
        replica ??= createPool({ ...replicaOptions, onChange: (_, failure) => note(failure) })
    } catch {
      // The primary's pool tells of it.
    }
    await sleep(POSITION_INTERVAL_MS, undefined, { ref: false })
    if (!closed) void watchPosition()
  }

  /** Notes that a replica failed, or answered. Each change is told of once. */
  function note(failure?: DatabaseUnavailable) {
    if (Boolean(restsUntil) !== Boolean(failure)) options.onChange?.('replica', failure)
    restsUntil = failure ? performance.now() + REST_MS : 0
  }

  const query: Pool['query'] = async (use, text, parameters, until, source) => {
    const now = performance.now()
    if (source === 'replica-first' && replica && now >= restsUntil && until - now > patienceMs) {
      try {
        const rows = await replica.query(use, text, parameters, now + patienceMs)
        note()
        return rows
      } catch (error) {
        if (error instanceof DatabaseUnavailable) note(error)
      }
    }
    try {
      return await primary.query(use, text, parameters, until, source)
    } catch (error) {
      const isGone = error instanceof DatabaseUnavailable && error.reached === 'lost' && error !== NO_ANSWER
      if (!source || !replica || !(isGone || primary.failure())) throw error
      const { query: ask } = replica
      // A connection may be silent, so another gets a try. Where neither server answers, the primary may come back.
      return ask(use, text, parameters, performance.now() + patienceMs)
        .catch(() => ask(use, text, parameters, until))
        .catch(() => primary.query(use, text, parameters, until))
    }
  }

  void watchPosition()

  return {
    ...primary,
    query,
    busy: () => primary.busy() || replica?.busy() === true,
    state: () => ({
      ...primary.state(),
      replica: replica && { ...replica.state(), up: !restsUntil && replica.state().up },
    }),
    failure: () => primary.failure() && (replica ?? primary).failure(),
    async close(timeoutMs) {
      closed = true
      await Promise.all([primary.close(timeoutMs), replica?.close(timeoutMs)])
    },
  }
}
