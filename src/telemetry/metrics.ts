import { Hono } from 'hono'
import packageJson from '../../package.json' with { type: 'json' }
import type { Pool } from '../db/pool.ts'
import { events, REFUSALS, underWay } from '../events.ts'
import { NO_SNIFF } from '../http/answer.ts'
import { methodOf, routeOf } from '../http/env.ts'
import descriptions from './metrics.json' with { type: 'json' }
import { createHistogram, metricText, type Samples } from './prometheus.ts'
import { statementName } from './statement-name.ts'

/** How often the event loop's delay is measured. */
const DELAY_INTERVAL_MS = 100
const BUILD = `{name="${packageJson.name}",version="${packageJson.version}",node="${process.version}"}`
const HEADERS = { 'Content-Type': 'text/plain; version=0.0.4', ...NO_SNIFF }

/** Samples of a metric that has one label. */
const by = (label: string, values: Record<string, number>): Samples =>
  Object.fromEntries(Object.entries(values).map(([value, sample]) => [`{${label}="${value}"}`, sample]))
const metric = (name: keyof typeof descriptions, samples: Samples) => metricText(name, descriptions[name], samples)

/**
 * Answers `/metrics` for Prometheus, with what it measures from now on of requests, statements and this process. Nothing
 * that a client may choose freely becomes a label.
 */
export function createMetrics(pool: Pool) {
  const requests = createHistogram(descriptions.http_server_request_duration_seconds.buckets)
  const statements = createHistogram(descriptions.db_client_operation_duration_seconds.buckets)
  const batches = createHistogram(descriptions.db_client_batch_size.buckets)
  const delays = createHistogram(descriptions.nodejs_eventloop_delay_seconds.buckets)
  const refused = new Map(REFUSALS.map((why) => [why, 0]))

  events.on('answered', (c, ms) => {
    const route = `http_request_method="${methodOf(c)}",http_route="${routeOf(c)}"`
    requests.observe(`${route},http_response_status_code="${c.res.status}",`, ms / 1000)
  })
  events.on('refused', (why) => refused.set(why, (refused.get(why) ?? 0) + 1))
  events.on('statement', (text, ms, _spans, errorType) => {
    const { operation, table } = statementName(text)
    const labels = `db_system_name="postgresql",db_operation_name="${operation}",db_collection_name="${table}",`
    statements.observe(errorType ? `${labels}error_type="${errorType}",` : labels, ms / 1000)
  })
  events.on('batch', (gather, size) => batches.observe(`gather="${gather}",`, size))

  let due = performance.now() + DELAY_INTERVAL_MS
  setInterval(() => {
    delays.observe('', Math.max(0, performance.now() - due) / 1000)
    due = performance.now() + DELAY_INTERVAL_MS
  }, DELAY_INTERVAL_MS).unref()

  function text() {
    const { up, used, idle, max, waiting, replica } = pool.state()
    const loop = performance.eventLoopUtilization()
    const cpu = process.cpuUsage()
    return [
      metric('http_server_request_duration_seconds', requests.samples()),
      metric('http_server_active_requests', { '': underWay.requests }),
      metric('http_server_active_streams', { '': underWay.streams }),
      metric('http_server_refused_requests_total', by('reason', Object.fromEntries(refused))),
      metric('db_client_operation_duration_seconds', statements.samples()),
      metric('db_client_batch_size', batches.samples()),
      metric('db_up', { '': Number(up) }),
      metric('db_client_connections', by('state', { used, idle })),
      metric('db_client_connections_max', { '': max }),
      metric('db_client_pending_statements', { '': waiting }),
      metric('db_replica_up', replica ? { '': Number(replica.up) } : {}),
      metric('db_replica_connections', replica ? by('state', { used: replica.used, idle: replica.idle }) : {}),
      metric('db_replica_pending_statements', replica ? { '': replica.waiting } : {}),
      metric('nodejs_eventloop_delay_seconds', delays.samples()),
      metric('nodejs_eventloop_time_seconds_total', by('state', { active: loop.active / 1e3, idle: loop.idle / 1e3 })),
      metric('process_cpu_seconds_total', { '': (cpu.user + cpu.system) / 1e6 }),
      metric('process_resident_memory_bytes', { '': process.memoryUsage.rss() }),
      metric('process_start_time_seconds', { '': performance.timeOrigin / 1e3 }),
      metric('build_info', { [BUILD]: 1 }),
    ].join('')
  }

  return new Hono()
    .get('/metrics', (c) => c.text(text(), 200, HEADERS))
    .notFound((c) => c.text('Only /metrics is here.\n', 404, HEADERS))
}
