import { setTimeout as sleep } from 'node:timers/promises'
import * as otel from '@opentelemetry/api'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import * as resources from '@opentelemetry/resources'
import * as sdk from '@opentelemetry/sdk-trace'
import type { MiddlewareHandler } from 'hono'
import packageJson from '../../package.json' with { type: 'json' }
import { events, requestSpans } from '../events.ts'
import { type Env, methodOf, parseTraceparent, routeOf } from '../http/env.ts'
import { statementName } from './statement-name.ts'

/** Spans that are left are sent for no longer than this when the process stops. */
const FLUSH_TIMEOUT_MS = 2000

const { name, version } = packageJson
const own = resources.resourceFromAttributes({ 'service.name': name, 'service.version': version })
const detectors = [resources.resourceAttributesEnvDetector, resources.serviceNameEnvDetector]

function end(span: otel.Span, errorType: string | undefined, time?: number) {
  if (errorType) span.setAttribute('error.type', errorType).setStatus({ code: otel.SpanStatusCode.ERROR })
  span.end(time)
}

/**
 * Makes a span of each request and of each statement, and sends them to the collector that OpenTelemetry's variables name.
 * They hold nothing that a client may choose freely, such as a path or a header. No request waits for the collector.
 * @param ratio the share of traces that are recorded
 * @param parentBased whether the caller decides instead, if it sent a `traceparent`
 * @param onLost is called when the collector did not take spans
 */
export function startTracing({ ratio, parentBased }: { ratio: number; parentBased: boolean }, onLost: () => void) {
  otel.diag.setLogger({ error: onLost, warn: onLost, info() {}, debug() {}, verbose() {} }, otel.DiagLogLevel.WARN)
  const root = new sdk.TraceIdRatioBasedSampler(ratio)
  const provider = new sdk.TracerProvider({
    // What OpenTelemetry's variables say comes before what we say.
    resource: resources.defaultResource().merge(own).merge(resources.detectResources({ detectors })),
    sampler: parentBased ? new sdk.ParentBasedSampler({ root }) : root,
    spanProcessors: [new sdk.BatchSpanProcessor({ exporter: new OTLPTraceExporter() })],
  })
  const tracer = provider.getTracer(name)
  const within = (parent: otel.SpanContext) => otel.trace.setSpanContext(otel.ROOT_CONTEXT, parent)

  const middleware: MiddlewareHandler<Env> = async function traceRequest(c, next) {
    const parent = parseTraceparent(c.req.header('traceparent'))
    const attributes = { 'http.request.method': methodOf(c), 'url.scheme': 'http' }
    const span = tracer.startSpan(methodOf(c), { kind: otel.SpanKind.SERVER, attributes }, parent && within(parent))
    await requestSpans.run([span], next)
    const [route, status] = [routeOf(c), c.res.status]
    span.updateName([methodOf(c).replace('_OTHER', 'HTTP'), route].filter(Boolean).join(' '))
    span.setAttributes({ 'http.route': route || undefined, 'http.response.status_code': status })
    end(span, status >= 500 ? String(status) : undefined)
  }

  // A statement belongs to the first request that shared it. The others are linked to it.
  events.on('statement', (text, ms, spans, errorType) => {
    const [first, ...others] = spans.filter((span) => span.spanContext().traceFlags & otel.TraceFlags.SAMPLED)
    if (!first) return
    const { operation, table } = statementName(text)
    const what = { 'db.operation.name': operation, 'db.collection.name': table || undefined, 'db.query.text': text }
    // Not by performance.now(), which the clock of the machine leaves behind.
    const endTime = Date.now()
    const attributes = { 'db.system.name': 'postgresql', ...what }
    const options = { kind: otel.SpanKind.CLIENT, startTime: endTime - ms, attributes }
    const span = tracer.startSpan([operation, table].filter(Boolean).join(' '), options, within(first.spanContext()))
    // A request that did not wait for the answer has ended.
    for (const other of others.filter((each) => each.isRecording())) other.addLink({ context: span.spanContext() })
    end(span, errorType, endTime)
  })

  /** Sends the spans that are left, for at most `timeoutMs`. */
  async function stop(timeoutMs: number) {
    const timeout = sleep(Math.min(timeoutMs, FLUSH_TIMEOUT_MS)).then(() => Promise.reject())
    await Promise.race([provider.shutdown(), timeout]).catch(onLost)
  }

  return { middleware, stop }
}
