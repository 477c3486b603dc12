import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { getRequestListener, RequestError } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { NO_SNIFF } from './answer.ts'
import { requestIdOf } from './env.ts'
import { PROBLEM_HEADERS, Problem, problemJson, TITLES } from './problem.ts'

export const MAX_HEADER_BYTES = 16 * 1024
/** Requests of a connection that may wait for the answers before them. Each takes about 10 KB. */
const MAX_WAITING = 16

const INVALID_TARGET = new Problem(400, 'The target must be a path in ASCII, with all else percent-encoded as UTF-8.')
const INVALID_HOST = new Problem(400, 'The request needs a valid Host header and a valid path.')
const INVALID_CODING = new Problem(400, 'The only transfer coding is chunked, and HTTP/1.0 has none.')

/** What the HTTP parser refuses, by its error code; 400 for the rest. */
export const PARSER_PROBLEMS: Record<string, Problem> = {
  HPE_INVALID_URL: INVALID_TARGET,
  HPE_HEADER_OVERFLOW: new Problem(431, `The headers must be 1000 at most, with ${MAX_HEADER_BYTES} bytes at most.`),
  ERR_HTTP_REQUEST_TIMEOUT: new Problem(408, 'The request did not arrive in time.'),
}
const NOT_HTTP = new Problem(400, 'The request is not valid HTTP.')

/** Why the app cannot be asked, though the parser took the request (RFC 9112, sections 3.2 and 6.1). */
function faultOf({ httpVersion, url = '', headers }: IncomingMessage): Problem | undefined {
  const { host, 'transfer-encoding': coding } = headers
  if (!host && httpVersion !== '1.0') return INVALID_HOST
  if (coding !== undefined && (coding.toLowerCase() !== 'chunked' || httpVersion === '1.0')) return INVALID_CODING
  try {
    decodeURIComponent(url)
  } catch {
    return INVALID_TARGET
  }
  return url.startsWith('/') ? undefined : INVALID_TARGET
}

/**
 * Answers on the socket itself, as there may be no response object, and ends it: what may still come is not read, or a
 * client that was told 408 could go on and have its request carried out.
 */
function refuseOnSocket(socket: Duplex, problem: Problem, request?: IncomingMessage) {
  const requestId = requestIdOf(request?.headersDistinct['x-request-id']?.[0])
  const body = problemJson(problem, request?.url, requestId)
  const general = { ...PROBLEM_HEADERS, ...NO_SNIFF, Date: new Date().toUTCString(), Connection: 'close' }
  const headers = { ...general, 'Content-Length': Buffer.byteLength(body), 'X-Request-Id': requestId }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  const head = `HTTP/1.1 ${problem.status} ${TITLES[problem.status]}\r\n${lines.join('')}\r\n`
  socket.end(request?.method === 'HEAD' ? head : head + body, () => socket.destroy())
}

/** The responses of a connection in their order, but those that had been sent when its last request came. */
const responses = new WeakMap<Duplex, ServerResponse[]>()

/** The responses of a connection that have not been sent. */
const unsent = (socket: Duplex) => (responses.get(socket) ?? []).filter((response) => !response.writableFinished)

/** Whether an answer is made, and its end waits for the client to take it. */
export const hasUnsentEnd = (socket: Duplex) => unsent(socket).some(({ writableEnded }) => writableEnded)

/** Node's listener for `clientError`: what the parser refuses, and what does not arrive in time. */
export function refuseBroken(error: NodeJS.ErrnoException, socket: Duplex) {
  const due = unsent(socket).at(-1)
  // Lines are answered as they come: each of them has this time for itself.
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT' && due?.headersSent && !due.req.complete) return
  // Amid an answer, a second one would only garble it.
  if (error.code === 'ECONNRESET' || !socket.writable || due?.headersSent) socket.destroy()
  // Garbage after a whole request: that one is being carried out, so its own answer must come, as the last one.
  else if (due?.req.complete) due.shouldKeepAlive = false
  // Answers to earlier requests come first: there is no way to get in line behind them.
  else if (due?.socket === null) socket.destroy()
  else refuseOnSocket(socket, PARSER_PROBLEMS[error.code ?? ''] ?? NOT_HTTP)
}

/**
 * Node's listener for the app's `fetch`: what the app cannot be asked is refused in the form of its own problems. Once
 * `stopping` is aborted, each answer closes its connection.
 */
export function createListener(fetch: Parameters<typeof getRequestListener>[0], stopping: AbortSignal) {
  async function answering(...[request, env]: Parameters<typeof fetch>) {
    const response = await fetch(request, env)
    // A stream has answered by itself.
    return env.outgoing.headersSent ? RESPONSE_ALREADY_SENT : response
  }
  const respond = getRequestListener(answering, {
    // Of an HTTP/1.0 request that names no host.
    hostname: 'localhost',
    // No URL can be made of the host and the path: left unanswered, because only the listener has the request.
    errorHandler: (error) => (error instanceof RequestError ? undefined : new Response(null, { status: 500 })),
  })
  return async function listener(request: IncomingMessage, response: ServerResponse) {
    const { socket } = request
    const before = unsent(socket)
    if (before.length > MAX_WAITING) return socket.destroy()
    responses.set(socket, [...before, response])
    const last = before.at(-1)
    // A client that sends many requests at once, and reads no answer, would otherwise fill the memory with answers.
    if (last) await new Promise((resolve) => last.once('close', resolve))
    if (!socket.writable) return
    if (stopping.aborted) response.shouldKeepAlive = false
    const fault = faultOf(request)
    if (fault) return refuseOnSocket(socket, fault, request)
    await respond(request, response)
    if (!response.headersSent) refuseOnSocket(socket, INVALID_HOST, request)
  }
}
