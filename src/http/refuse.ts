import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { PROBLEM_MEDIA_TYPE, Problem, problemJson } from './problem.ts'
import { requestIdOf } from './request-id.ts'

export const MAX_HEADER_BYTES = 16 * 1024

/** What the HTTP parser refuses, by its error code; 400 for the rest. */
const PARSER_PROBLEMS: Record<string, Problem> = {
  HPE_HEADER_OVERFLOW: new Problem(431, `The headers must have at most ${MAX_HEADER_BYTES} bytes.`),
  HPE_CHUNK_EXTENSIONS_OVERFLOW: new Problem(413, 'The chunk extensions are too large.'),
  ERR_HTTP_REQUEST_TIMEOUT: new Problem(408, 'The request did not arrive in time.'),
}
const NOT_HTTP = new Problem(400, 'The request is not valid HTTP.')

function written(requestId: string, problem: Problem, target?: string) {
  const body = problemJson(problem, target, requestId)
  const headers = {
    'Content-Type': PROBLEM_MEDIA_TYPE,
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    'X-Request-Id': requestId,
    Connection: 'close',
  }
  return { body, headers }
}

/** Answers a request that the app cannot be asked, and closes the connection. */
export function refuseRequest(request: IncomingMessage, response: ServerResponse, problem: Problem) {
  const requestId = requestIdOf(request.headers['x-request-id'] as string | undefined)
  const { body, headers } = written(requestId, problem, request.url)
  response.writeHead(problem.status, headers).end(body)
}

/**
 * Answers on a socket that has no response object, and ends it: what may still come is not read, or a client that was
 * told 408 could go on and have its request carried out.
 */
export function refuseSocket(socket: Duplex, problem: Problem, givenId?: string) {
  const { body, headers } = written(requestIdOf(givenId), problem)
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  const { status } = problem
  socket.on('error', () => {})
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`, () => socket.destroy())
}

/** What `clientError` of a server is for: answers what the parser refused, or what did not arrive in time. */
export function refuseBrokenRequest(error: NodeJS.ErrnoException, socket: Duplex & { _httpMessage?: ServerResponse }) {
  // Node's own field, and the only way to what this connection still has to answer.
  const before = socket._httpMessage
  // Amid an answer to the request before, a second one would only garble it.
  if (error.code === 'ECONNRESET' || !socket.writable || before?.headersSent) return void socket.destroy()
  // Garbage after a whole request: that one is being carried out, so its own answer must come, as the last one.
  if (before?.req.complete) {
    before.shouldKeepAlive = false
    return
  }
  refuseSocket(socket, PARSER_PROBLEMS[error.code ?? ''] ?? NOT_HTTP)
}
