import type { HttpBindings } from '@hono/node-server'
import type { Logger } from 'pino'

/** What every handler finds in its context. */
export type Env = {
  Bindings: HttpBindings
  Variables: {
    requestId: string
    log: Logger
    /** Its deadline, a time of performance.now(). */
    until: number
    /** The bytes of the body, where the method has one. */
    body: Buffer
  }
}
