/* Copyright 2026 The bgloop developers
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "model-world.h"

/* Who waits for whom, and since and until when. A wait is noted before the library is called and
 * taken out when that has returned: what the library knows of is always among it. So where there
 * was no circle here at any time during a call, the call cannot have closed one. */

static ModelEdge edges[MODEL_MAX_EDGES];
static _Atomic guint n_edges;

ModelEdge *
model_graph_add (ModelActor *from, ModelActor *to)
{
  guint i = model_increment (&n_edges);
  ModelEdge *edge = &edges[i % MODEL_MAX_EDGES];

  model_store (&edge->end, 0);
  model_store (&edge->begin, model_stamp ());
  model_store (&edge->to, to);
  model_store (&edge->from, from);
  return edge;
}

void
model_graph_remove (ModelEdge *edge)
{
  model_store (&edge->end, model_stamp ());
}

static gboolean
has_lasted (ModelEdge *edge, ModelStamp since)
{
  ModelStamp end = model_load (&edge->end);

  return end == 0 || end > since;
}

/* Whoever waits for the default loop may wait for any that has been it. */
static void
add_defaults (GPtrArray *reached)
{
  ModelLife *life;

  for (guint i = 0; (life = model_life_get (i)) != NULL; i++)
    if (life->slot == MODEL_DEFAULT && !g_ptr_array_find (reached, &life->actor, NULL))
      g_ptr_array_add (reached, &life->actor);
}

/* Whether @to can have waited for @from at any time since then, at any length. */
gboolean
model_graph_may_be_circle (ModelActor *from, ModelActor *to, ModelStamp since)
{
  g_autoptr (GPtrArray) reached = g_ptr_array_new ();
  guint n = model_load (&n_edges);

  /* Too much to remember: everything may have been. */
  if (n > MODEL_MAX_EDGES)
    return TRUE;

  g_ptr_array_add (reached, to);
  for (guint at = 0; at < reached->len; at++)
    {
      ModelActor *actor = g_ptr_array_index (reached, at);

      if (actor == from)
        return TRUE;
      if (actor == &model_world->any_default)
        add_defaults (reached);
      for (guint i = 0; i < n; i++)
        {
          ModelActor *next = model_load (&edges[i].to);

          if (model_load (&edges[i].from) == actor && has_lasted (&edges[i], since)
              && !g_ptr_array_find (reached, next, NULL))
            g_ptr_array_add (reached, next);
        }
    }

  return FALSE;
}

void
model_graph_clear (void)
{
  guint n = model_load_up_to (&n_edges, MODEL_MAX_EDGES);

  for (guint i = 0; i < n; i++)
    model_store (&edges[i].from, NULL);
  model_store (&n_edges, 0);
}
