import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import { requestIdOf } from './http/log.ts'
import { PROBLEM_MEDIA_TYPE, problemDetails } from './http/problem.ts'

export type ServerOptions = {
  fetch: Parameters<typeof getRequestListener>[0]
  /** 0 for any free port. */
  port: number
  /** The address to listen on; all of them if left out. */
  host: string | undefined
  /** Aborted when the process is about to stop: from then on each answer closes its connection. */
  stopping: AbortSignal
  /** How long `stop` keeps answering, so that whoever sends requests here can learn to stop. */
  drainDelayMs: number
  /** The whole of `stop` takes no longer: connections that remain are then cut. */
  shutdownTimeoutMs: number
  /** A proxy in front must be the first to close an idle connection: Google's load balancer waits 600 s. */
  keepAliveTimeoutMs: number
  /** From the first byte of a request to the last of its headers. */
  headersTimeoutMs: number
  /** From the first byte of a request to the last of its body. */
  requestTimeoutMs: number
  /** With nothing sent or received for so long, amid a request, a connection is cut: a client that does not read. */
  idleTimeoutMs: number
}

export type RunningServer = { port: number; stop(): Promise<void> }

const SWEEP_INTERVAL_MS = 100
const MAX_HEADER_BYTES = 16 * 1024

/** What the HTTP parser refuses, by its error code; 400 for the rest. */
const PARSER_PROBLEMS: Record<string, [status: number, detail: string]> = {
  HPE_HEADER_OVERFLOW: [431, `The headers must have at most ${MAX_HEADER_BYTES} bytes.`],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [413, 'The chunk extensions are too large.'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'The request did not arrive in time.'],
}

function problemFor(requestId: string, status: number, detail: string, instance: string) {
  const body = JSON.stringify(problemDetails(status, detail, instance, requestId))
  return {
    body,
    headers: {
      'Content-Type': PROBLEM_MEDIA_TYPE,
      'Content-Length': Buffer.byteLength(body),
      'X-Request-Id': requestId,
      Connection: 'close',
    },
  }
}

/**
 * Answers on a socket that has no response object, because the request could not be parsed, and ends it: what may
 * still come is not read, or a client that was told 408 could go on and have its request carried out.
 */
function refuse(socket: Duplex, status: number, detail: string) {
  const { body, headers } = problemFor(requestIdOf(undefined), status, detail, '')
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.on('error', () => {})
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`, () => socket.destroy())
}

function refuseRequest(request: IncomingMessage, response: ServerResponse, status: number, detail: string) {
  const requestId = requestIdOf(request.headers['x-request-id'] as string | undefined)
  const { body, headers } = problemFor(requestId, status, detail, request.url ?? '')
  response.writeHead(status, headers).end(body)
}

/** Listens; rejects when it cannot. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { stopping, shutdownTimeoutMs, drainDelayMs } = options
  const respond = getRequestListener(options.fetch, {
    // Of an HTTP/1.0 request that names no host.
    hostname: 'localhost',
    // Only for targets and hosts that no URL can be made of: the app answers its own errors.
    errorHandler: () => {
      const { body, headers } = problemFor(requestIdOf(undefined), 400, 'The request target is not valid.', '')
      return new Response(body, { status: 400, headers: headers as never })
    },
  })
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      keepAliveTimeout: options.keepAliveTimeoutMs,
      headersTimeout: options.headersTimeoutMs,
      requestTimeout: options.requestTimeoutMs,
      connectionsCheckingInterval: Math.min(1000, options.headersTimeoutMs),
      // Checked below, because Node's own answer has no body.
      requireHostHeader: false,
      // Two Hosts make none that is valid: else the first would count, and a proxy may go by the second.
      joinDuplicateHeaders: true,
      noDelay: true,
    },
    (request, response) => {
      if (stopping.aborted) response.shouldKeepAlive = false
      const { host } = request.headers
      if (host === undefined && request.httpVersion !== '1.0') {
        return refuseRequest(request, response, 400, 'The request has no Host header.')
      }
      if (!URL.canParse(`http://${host ?? 'localhost'}`) || !request.url?.startsWith('/')) {
        return refuseRequest(request, response, 400, 'The Host header or the request target is not valid.')
      }
      return void respond(request, response)
    },
  )
  server.timeout = options.idleTimeoutMs
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex & { _httpMessage?: ServerResponse }) => {
    // Node's own field, and the only way to what this connection still has to answer.
    const before = socket._httpMessage
    // Amid an answer to the request before, a second one would only garble it.
    if (error.code === 'ECONNRESET' || !socket.writable || before?.headersSent) return void socket.destroy()
    // Garbage after a whole request: that one is being carried out, so its own answer must come, as the last one.
    if (before?.req.complete) {
      before.shouldKeepAlive = false
      return
    }
    const [status, detail] = PARSER_PROBLEMS[error.code ?? ''] ?? [400, 'The request is not valid HTTP.']
    refuse(socket, status, detail)
  })
  // Whoever reads the body says so: it may be one that is refused by its length.
  server.on('checkContinue', (request, response) => server.emit('request', request, response))
  server.on('connect', (_request, socket: Duplex) => refuse(socket, 405, 'This is not a proxy.'))
  server.on('checkExpectation', (request, response) => refuseRequest(request, response, 417, 'Only 100-continue.'))
  server.listen(options.port, options.host)
  await once(server, 'listening')

  async function stop() {
    const started = performance.now()
    await sleep(drainDelayMs)
    const closed = once(server, 'close')
    server.close()
    // A connection whose last answer began before is kept alive still: it is ended when it is idle.
    const sweep = setInterval(() => server.closeIdleConnections(), SWEEP_INTERVAL_MS)
    await Promise.race([closed, sleep(Math.max(0, shutdownTimeoutMs - (performance.now() - started)))])
    clearInterval(sweep)
    server.closeAllConnections()
  }

  return { port: (server.address() as AddressInfo).port, stop }
}
