/** What @hono/node-server takes of node:http2, for a server that has none: nothing is ever an instance of this. */
export class Http2ServerRequest {}
export const constants = {}
