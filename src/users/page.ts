import { type Context, Hono } from 'hono'
import { csrf } from 'hono/csrf'
import { NO_ID } from '../db/columns.ts'
import { answer } from '../http/answer.ts'
import { entityTag, ifMatch } from '../http/conditional.ts'
import type { Env } from '../http/env.ts'
import { encodeCursor, LIMIT_DEFAULT, nextPath } from '../http/list.ts'
import { page } from '../http/page.ts'
import { Problem, problemFor } from '../http/problem.ts'
import { changed, found } from '../http/refusal.ts'
import { invalid, validId } from '../http/validate.ts'
import { NewUser, NOUN, type User } from './schemas.ts'
import type { UserStore } from './store.ts'
import { FORMS, type Form, type FormName, formView, listView, type Values } from './views.ts'

const STALE = 'Someone has changed this user since you opened it. Send the form again if you still want to.'
const FOREIGN = 'The form was sent from another site, so nothing was done. Open it here, and send it again.'

/** The list for a person. */
export const listPage = (c: Context<Env>, users: User[], next: string | null) =>
  page(c, 'Users', listView(users, next && nextPath(c, next), c.req.query(), !c.get('identity')))

/** The page of the list that has this user. */
const pathTo = (id: number) =>
  `/users${id > LIMIT_DEFAULT ? `?cursor=${encodeCursor(id - LIMIT_DEFAULT)}` : ''}#user-${id}`

/** Whether an origin has the host that the request was sent to. */
const isOf = (c: Context, origin: string) => URL.parse(origin)?.host === new URL(c.req.url).host

const showForm = (c: Context<Env>, name: FormName, form: Form) =>
  page(c, FORMS[name].title, formView(name, form), form.problem)

/**
 * The forms of the page at `/users`: a person's view of the API, with the same validation and the same store. A form can
 * only POST, so each has a path of its own, to which no other site may make a browser send something.
 */
export function userForms(store: UserStore) {
  // Browsers from before 2023 send only an Origin. Its scheme is not compared: a proxy may end TLS, so ours is not known.
  const guard = csrf({ origin: (origin, c) => !c.req.header('sec-fetch-site') && isOf(c, origin) })

  async function change(c: Context<Env>, name: FormName, id: number, { etag = '', username, email }: Values) {
    const versions = name === 'new' ? undefined : ifMatch(etag)
    if (name === 'delete') return changed(c, NOUN, 'delete', (until) => store.remove(id, versions, until), id)
    const { data: user, error } = NewUser.safeParse({ username, email })
    if (error) throw invalid(error.issues)
    if (name === 'edit') return changed(c, NOUN, 'update', (until) => store.update(id, user, versions, until), id)
    return changed(c, NOUN, 'create', (until) => store.create({ ...user, key: null, hash: null }, until))
  }

  /** Shows the form of a user at its present version, with what was typed when it showed an older one. */
  async function showPresent(c: Context<Env>, name: FormName, id: number, sent?: Values) {
    const { version, ...stored } = found(NOUN, await store.get(id, c.get('until')))
    const values = { ...(sent ?? stored), etag: entityTag(version) }
    return showForm(c, name, { values, stored, problem: sent && new Problem(412, STALE) })
  }

  /** Does what a form asks for, and leads to the user; or shows the form again, with what was wrong. */
  async function submit(c: Context<Env>, name: FormName, id: number) {
    await guard(c, async () => {}).catch(() => Promise.reject(new Problem(403, FOREIGN)))
    const values: Values = Object.fromEntries(new URLSearchParams(String(c.get('body'))))
    try {
      const row = await change(c, name, id, values)
      return answer(c, null, 303, { Location: pathTo(row.id) })
    } catch (error) {
      const problem = problemFor(error as Error, c)
      return problem.status === 412 ? showPresent(c, name, id, values) : showForm(c, name, { values, problem })
    }
  }

  return new Hono<Env>()
    .all('/:id', (c, next) => {
      // Not a path of its own: one beside `/:id` would turn Hono to its slower router, for every request.
      if (c.req.param('id') !== 'new') return next()
      if (c.req.method === 'POST') return submit(c, 'new', NO_ID)
      return ['GET', 'HEAD'].includes(c.req.method) ? showForm(c, 'new', { values: {} }) : next()
    })
    .get('/:id/edit', validId, (c) => showPresent(c, 'edit', c.req.valid('param').id))
    .post('/:id/edit', validId, (c) => submit(c, 'edit', c.req.valid('param').id))
    .get('/:id/delete', validId, (c) => showPresent(c, 'delete', c.req.valid('param').id))
    .post('/:id/delete', validId, (c) => submit(c, 'delete', c.req.valid('param').id))
}
