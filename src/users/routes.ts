import { type Context, Hono } from 'hono'
import type { Config } from '../config.ts'
import { answer, json } from '../http/answer.ts'
import { answerPresent, CACHE, startingVersions, versionHeaders } from '../http/conditional.ts'
import type { Env } from '../http/env.ts'
import { idempotencyOf } from '../http/idempotency.ts'
import { LIMIT_DEFAULT, nextLink, pageOf } from '../http/list.ts'
import { streamInstead } from '../http/ndjson.ts'
import { wantsHtml } from '../http/page.ts'
import { PathId } from '../http/path.ts'
import { changed, found } from '../http/refusal.ts'
import { PATCH_MEDIA_TYPES, valid } from '../http/validate.ts'
import { listPage } from './page.ts'
import { ListQuery, NewUser, UserPatch } from './schemas.ts'
import type { UserStore } from './store.ts'

const NOUN = 'user'

/** The routes under `/users`. */
export function userRoutes(store: UserStore, { MAX_STREAMS, PAGE }: Config) {
  const present = async (c: Context<Env>, id: number) => found(NOUN, await store.get(id, c.get('until')))

  async function change(c: Context<Env>, id: number, patch: UserPatch) {
    const versions = await startingVersions(c, NOUN, () => present(c, id))
    const update = (until: number) => store.update(id, patch, versions, until)
    const { version, ...user } = await changed(c, NOUN, 'update', update, id)
    return json(c, user, 200, versionHeaders(version))
  }

  return new Hono<Env>()
    .get('/', valid('query', ListQuery), streamInstead(MAX_STREAMS, store.stream), async (c) => {
      const { limit = LIMIT_DEFAULT, cursor: after = 0, username, email } = c.req.valid('query')
      const listed = await store.list({ limit: limit + 1, after, username, email }, c.get('until'))
      const { rows: users, next } = pageOf(listed, limit)
      if (PAGE === 'on' && wantsHtml(c)) return listPage(c, users, next)
      return json(c, { users, next }, 200, { ...CACHE, Vary: 'Accept', ...nextLink(c, next) })
    })

    .post('/', valid('json', NewUser), async (c) => {
      const body = c.req.valid('json')
      const row = { ...body, ...idempotencyOf(c, [body.username, body.email]) }
      const { version, ...user } = await changed(c, NOUN, 'create', (until) => store.create(row, until))
      return json(c, user, 201, { ...versionHeaders(version), Location: `/users/${user.id}` })
    })

    .get('/:id', valid('param', PathId), async (c) => {
      const { version, ...user } = await present(c, c.req.valid('param').id)
      return answerPresent(c, NOUN, user, version)
    })

    .put('/:id', valid('param', PathId), valid('json', NewUser), (c) =>
      change(c, c.req.valid('param').id, c.req.valid('json')),
    )

    .patch('/:id', valid('param', PathId), valid('json', UserPatch, PATCH_MEDIA_TYPES), (c) =>
      change(c, c.req.valid('param').id, c.req.valid('json')),
    )

    .delete('/:id', valid('param', PathId), async (c) => {
      const { id } = c.req.valid('param')
      const versions = await startingVersions(c, NOUN, () => present(c, id))
      await changed(c, NOUN, 'delete', (until) => store.remove(id, versions, until), id)
      return answer(c, null, 204, {})
    })
}
