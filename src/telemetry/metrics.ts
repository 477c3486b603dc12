import { Hono } from 'hono'
import { createMiddleware } from 'hono/factory'
import packageJson from '../../package.json' with { type: 'json' }
import type { OnStatement, Pool } from '../db/pool.ts'
import { type Env, methodOf, routeOf } from '../http/env.ts'
import descriptions from './metrics.json' with { type: 'json' }
import { createHistogram, metricText, type Samples } from './prometheus.ts'
import { statementName } from './statement-name.ts'

/** How often the event loop's delay is measured. */
const DELAY_INTERVAL_MS = 100
const BUILD = `{name="${packageJson.name}",version="${packageJson.version}",node="${process.version}"}`

/** Measures requests, statements and this process for Prometheus. Nothing that a client may choose freely becomes a label. */
export function createMetrics() {
  const requests = createHistogram(descriptions.http_server_request_duration_seconds.buckets)
  const statements = createHistogram(descriptions.db_client_operation_duration_seconds.buckets)
  const batches = createHistogram(descriptions.db_client_batch_size.buckets)
  const delays = createHistogram(descriptions.nodejs_eventloop_delay_seconds.buckets)
  const refused: Samples = {}
  // Numbers: a set of the requests themselves would cost each of them 20 µs, most of it for the garbage collector.
  let underWay = 0
  let streams = 0
  const onStream = (change: 1 | -1) => {
    streams += change
  }

  let due = performance.now() + DELAY_INTERVAL_MS
  setInterval(() => {
    delays.observe('', Math.max(0, performance.now() - due) / 1000)
    due = performance.now() + DELAY_INTERVAL_MS
  }, DELAY_INTERVAL_MS).unref()

  const middleware = createMiddleware<Env>(async function measureRequest(c, next) {
    const start = performance.now()
    underWay++
    c.set('onStream', onStream)
    await next()
    underWay--
    const route = `http_request_method="${methodOf(c)}",http_route="${routeOf(c)}"`
    const seconds = (performance.now() - start) / 1000
    requests.observe(`${route},http_response_status_code="${c.res.status}",`, seconds)
    const refusal = c.get('refusal') && `{reason="${c.get('refusal')}"}`
    if (refusal) refused[refusal] = (refused[refusal] ?? 0) + 1
  })

  const onStatement: OnStatement = (text, start, _spans, errorType) => {
    const { operation, table } = statementName(text)
    const labels = `db_system_name="postgresql",db_operation_name="${operation}",db_collection_name="${table}",`
    const error = errorType ? `error_type="${errorType}",` : ''
    statements.observe(labels + error, (performance.now() - start) / 1000)
  }

  function samples(pool: Pool): Record<keyof typeof descriptions, Samples> {
    const { up, used, idle, max, waiting } = pool.state()
    const { active, idle: resting } = performance.eventLoopUtilization()
    const [cpu, memory] = [process.cpuUsage(), process.memoryUsage()]
    return {
      http_server_request_duration_seconds: requests.samples(),
      http_server_active_requests: { '': underWay },
      http_server_active_streams: { '': streams },
      http_server_refused_requests_total: refused,
      db_client_operation_duration_seconds: statements.samples(),
      db_client_batch_size: batches.samples(),
      db_up: { '': Number(up) },
      db_client_connections: { '{state="used"}': used, '{state="idle"}': idle },
      db_client_connections_max: { '': max },
      db_client_pending_statements: { '': waiting },
      nodejs_eventloop_delay_seconds: delays.samples(),
      nodejs_eventloop_time_seconds_total: { '{state="active"}': active / 1000, '{state="idle"}': resting / 1000 },
      process_cpu_seconds_total: { '': (cpu.user + cpu.system) / 1e6 },
      process_resident_memory_bytes: { '': memory.rss },
      nodejs_heap_size_used_bytes: { '': memory.heapUsed },
      nodejs_external_memory_bytes: { '': memory.external },
      process_start_time_seconds: { '': performance.timeOrigin / 1000 },
      build_info: { [BUILD]: 1 },
    }
  }

  function text(pool: Pool): string {
    const now = new Map(Object.entries(samples(pool)))
    return Object.entries(descriptions)
      .map(([name, it]) => metricText(name, it, now.get(name) ?? {}))
      .join('')
  }

  return {
    middleware,
    onStatement,
    onBatch: (gather: string, size: number) => batches.observe(`gather="${gather}",`, size),
    /** Answers `/metrics`. */
    app: (pool: Pool) =>
      new Hono().get('/metrics', (c) => c.text(text(pool), 200, { 'Content-Type': 'text/plain; version=0.0.4' })),
  }
}
