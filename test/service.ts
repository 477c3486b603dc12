import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'
import { main } from './process.ts'

/** The service as a process, which listens on free ports. */
export async function serve(env: Record<string, string>) {
  const api = main(['serve'], { PORT: '0', HOST: '127.0.0.1', DRAIN_DELAY_MS: '0', ...env })
  const [, metricsPort, port] = await api.printed(/(?:"metricsPort":(\d+),)?"port":(\d+),"(?:msg|message)":"listening"/)
  const metricsUrl = `http://127.0.0.1:${metricsPort}/metrics`
  return {
    ...api,
    port: Number(port),
    url: `http://127.0.0.1:${port}`,
    metricsUrl,
    metrics: async () => (await fetch(metricsUrl)).text(),
    /** Stops it, and gives what it printed. */
    async stop() {
      api.process.kill('SIGTERM')
      const code = await api.exited
      if (code !== 0) throw new Error(`It ended with ${code}: ${api.output()}`)
      return api.output()
    },
  }
}

/** The lines of a log that is JSON. */
export const logLines = (output: string) =>
  output
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))

/** The sum of the samples of a metric whose labels have all of these parts. */
export const sampleOf = (text: string, name: string, ...labels: string[]) =>
  text
    .split('\n')
    .filter((line) => line.replace(/[ {].*/, '') === name && labels.every((label) => line.includes(label)))
    .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)

type Attribute = { key: string; value: Record<string, unknown> }
type Link = { traceId: string; spanId: string }
export type ReceivedSpan = Link & {
  parentSpanId?: string
  name: string
  kind: number
  startTimeUnixNano: string
  endTimeUnixNano: string
  attributes: Record<string, unknown>
  status: { code: number }
  links: Link[]
}

const valuesOf = (attributes: Attribute[]) =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]))

/** An OTLP receiver, which decodes what is sent to it (opentelemetry.io/docs/specs/otlp). With `silent` it never answers. */
export async function startCollector({ silent = false } = {}) {
  const messages: { path: string; headers: IncomingHttpHeaders; text: string }[] = []
  const server = createServer((request, response) => {
    let text = ''
    request.setEncoding('utf8').on('data', (part) => (text += part))
    request.on('end', () => {
      messages.push({ path: request.url ?? '', headers: request.headers, text })
      if (!silent) response.setHeader('content-type', 'application/json').end('{}')
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const resources = () => messages.flatMap(({ text }) => JSON.parse(text).resourceSpans)
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    messages,
    resource: () => valuesOf(resources()[0].resource.attributes),
    spans: (): ReceivedSpan[] =>
      resources()
        .flatMap(({ scopeSpans }) => scopeSpans)
        .flatMap(({ spans }) => spans)
        .map((span) => ({ ...span, attributes: valuesOf(span.attributes) })),
  }
}
