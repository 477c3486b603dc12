import { describeResource } from '../../../src/http/openapi.ts'
import { ListQuery, NoteInput, NotePatch, noteAnswer } from './schemas.ts'

export const describeNotes = () =>
  describeResource({
    name: 'note',
    plural: 'notes',
    path: '/notes',
    query: ListQuery,
    input: NoteInput,
    patch: NotePatch,
    item: noteAnswer(),
  })
